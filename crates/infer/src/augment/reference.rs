//! The definition, pixel by pixel. There is nothing to round but what [`super::levels`] has rounded, so
//! that every form gives these very bits.

use super::Change;

/// `[N, 3, H, W]` for `changes` of images out of `pixels` `[M, 3, H, W]`, with a border of `padding`.
pub fn augment(
    pixels: &[u8],
    [height, width]: [usize; 2],
    changes: &[Change],
    padding: u32,
    levels: &[[f32; 256]; 3],
) -> Vec<f32> {
    let mut made = Vec::with_capacity(changes.len() * 3 * height * width);
    for change in changes {
        let [top, left, rows, columns] = change.cutout.map(|size| size as usize);
        for (channel, levels) in levels.iter().enumerate() {
            let plane = &pixels[(change.index as usize * 3 + channel) * height * width..][..height * width];
            for row in 0..height {
                for column in 0..width {
                    let before = if change.flip { width - 1 - column } else { column };
                    let y = (row + change.row as usize).checked_sub(padding as usize).filter(|y| *y < height);
                    let x = (before + change.column as usize).checked_sub(padding as usize).filter(|x| *x < width);
                    let level = y.zip(x).map_or(0, |(y, x)| plane[y * width + x]);
                    let cut = (top..top + rows).contains(&row) && (left..left + columns).contains(&column);
                    made.push(if cut { 0.0 } else { levels[usize::from(level)] });
                }
            }
        }
    }
    made
}
