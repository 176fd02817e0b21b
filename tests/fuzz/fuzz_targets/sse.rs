//! Any bytes as a stream of events: however they are cut, the frames are those of the
//! standard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::bytes::Bytes;
use reflex_fuzz::events;
use reflex_llm::fuzzing::frames;

fuzz_target!(|input: &[u8]| {
    let mut cuts = Bytes(input);
    let cuts = Bytes(cuts.piece(16));
    let (expected, between) = events::read(input);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    for chunks in [vec![input], bytes, { cuts }.cut(input)] {
        let (found, is_between) = frames(chunks).expect("no frame is too long");
        assert_eq!(found, expected);
        // Behind a carriage return it may wait for a line feed, if the stream has used pairs.
        if !input.ends_with(b"\r") {
            assert_eq!(is_between, between);
        }
    }
});
