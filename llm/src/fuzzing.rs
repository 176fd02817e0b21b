//! Entry points for the fuzz targets of `tests/fuzz`, which are outside this crate. Compiled with
//! `--cfg fuzzing` only.

use alloc::vec::Vec;

use crate::Rejected;
use crate::answer::sse::{Frames, Next};

/// The frames of a stream that comes in these chunks, each with its event's name and its data, and
/// whether the stream ends between two of them.
///
/// # Errors
///
/// None: these frames do not end the stream.
#[expect(
    clippy::type_complexity,
    reason = "one caller, which takes it apart at once"
)]
pub fn frames<'c>(
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(Vec<(Vec<u8>, Option<Vec<u8>>)>, bool), Rejected> {
    let mut frames = Frames::default();
    let mut found = Vec::new();
    for chunk in chunks {
        frames.feed(chunk, |frame| {
            found.push((frame.event.to_vec(), frame.data.map(<[u8]>::to_vec)));
            Ok(Next::More)
        })?;
    }
    Ok((found, frames.is_between_frames()))
}
