// Live pictures from the camera, one at a time: the next is taken when the last is answered.

import { Fault } from "./fault.js";

const REASONS = {
  NotAllowedError: "this page has no permission to use it",
  NotFoundError: "this machine has none",
  NotReadableError: "another program uses it",
  OverconstrainedError: "it cannot give a picture of this size",
};
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

  /** @throws {Fault} "camera", said why */
  async start() {
    if (!navigator.mediaDevices) throw new Fault("camera", "browsers give it to pages over https only");
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
   * Hands frames to `answer`, one after another, until `stop`.
   * @throws {Fault} "camera" if the camera ends by itself; whatever `answer` throws
   */
  async run(answer) {
    const [track] = this.#stream.getVideoTracks();
    while (this.running) {
      if (track.readyState === "ended") throw new Fault("camera", "it was unplugged or taken away");
      const frame = await this.#frame(FRAME_SIDE).catch((error) => {
        // Stopped meanwhile: there is nothing to take a frame of any more.
        if (this.running) throw error;
      });
      if (frame) await answer(frame);
      await nextFrame();
    }
  }

  /** What is seen now as a picture file. */
  async still() {
    const frame = await this.#frame(STILL_SIDE);
    const canvas = new OffscreenCanvas(frame.width, frame.height);
    canvas.getContext("bitmaprenderer").transferFromImageBitmap(frame);
    return new File([await canvas.convertToBlob()], "camera.png", { type: "image/png" });
  }

  /** The middle square of what is seen now. */
  async #frame(side) {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const square = Math.min(width, height);
    return createImageBitmap(this.#video, (width - square) >> 1, (height - square) >> 1, square, square, {
      resizeWidth: side,
      resizeHeight: side,
      resizeQuality: "medium",
    });
  }
}

/** Waits while the page is hidden as well: nobody looks at the answers then. */
function nextFrame() {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}
