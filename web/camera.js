// Live frames from the camera, one at a time: the next is taken once the last is classified.

import { Fault } from "./fault.js";
import { centerSquare } from "./pictures.js";

const REASONS = {
  NotAllowedError: "this page has no permission to use the camera",
  NotFoundError: "no camera was found",
  NotReadableError: "another program is using the camera",
  OverconstrainedError: "the camera does not support this picture size",
};
/** Largest side in pixels of a live frame and of the picture kept at the end. */
const FRAME_SIDE = 256;
const STILL_SIDE = 480;

export class Camera {
  #video;
  #stream;

  /** @param {HTMLVideoElement} video shows what the camera sees */
  constructor(video) {
    this.#video = video;
  }

  get running() {
    return this.#stream !== undefined;
  }

  /** @throws {Fault} "camera", with the reason */
  async start() {
    if (!navigator.mediaDevices) throw new Fault("camera", "browsers allow the camera only on https pages");
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } } });
      this.#video.srcObject = this.#stream;
      await this.#video.play();
    } catch (error) {
      this.stop();
      throw new Fault("camera", REASONS[error.name] ?? error.message);
    }
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = undefined;
    this.#video.srcObject = null;
  }

  /**
   * Passes frames to `answer`, one after another, until `stop`.
   * @throws {Fault} "camera" if the camera stops on its own; whatever `answer` throws
   */
  async run(answer) {
    const [track] = this.#stream.getVideoTracks();
    while (this.running) {
      if (track.readyState === "ended") throw new Fault("camera", "the camera was disconnected or permission was withdrawn");
      const frame = await this.#frame(FRAME_SIDE).catch((error) => {
        // After `stop`, a frame that cannot be taken is expected.
        if (this.running) throw error;
      });
      if (frame) await answer(frame);
      await nextFrame();
    }
  }

  /** The current frame as a picture file. */
  async still() {
    const frame = await this.#frame(STILL_SIDE);
    const canvas = new OffscreenCanvas(frame.width, frame.height);
    canvas.getContext("bitmaprenderer").transferFromImageBitmap(frame);
    return new File([await canvas.convertToBlob()], "camera.png", { type: "image/png" });
  }

  /** The center square of the current frame. */
  async #frame(maxSide) {
    const { videoWidth: width, videoHeight: height } = this.#video;
    return centerSquare(this.#video, [width, height], maxSide, "medium");
  }
}

/** Resolves at the next animation frame. A hidden page gets none, so the camera loop pauses while nobody is looking. */
function nextFrame() {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}
