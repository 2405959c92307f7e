//! Server-sent events, byte by byte: any line ending, any split of the input, comments, several `data` lines.
//!
//! By the HTML standard's section 9.2.6, with one leniency: an event that the end of the stream cuts off after its
//! data is given out, since some servers leave out the last empty line.

/// Longest event: a delta is a few bytes; tool arguments or an answer in one piece may be large.
pub(super) const EVENT_MAX_BYTES: usize = 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// What `event:` said; empty where nothing did.
    pub(super) name: String,
    /// The `data:` lines, joined by line feeds.
    pub(super) data: String,
}

/// An event is longer than [`EVENT_MAX_BYTES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The state between two pieces of input.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    name: String,
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return: a line feed after it belongs to the same line ending.
    after_return: bool,
    begun: bool,
}

impl Parser {
    /// Takes the next bytes and adds the events that they complete to `events`.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > EVENT_MAX_BYTES {
                return Err(TooLarge);
            }
            let Some(end) = end else { break };
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(events);
        }
        Ok(())
    }

    /// The event that the end of the stream cut off, if it had data.
    pub(super) fn end(&mut self) -> Option<Event> {
        let mut events = Vec::new();
        self.end_line(&mut events);
        self.dispatch(&mut events);
        events.pop()
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let mut line = std::mem::take(&mut self.line);
        let mut text: &[u8] = &line;
        if !std::mem::replace(&mut self.begun, true) {
            text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        }
        if text.is_empty() {
            self.dispatch(events);
        } else {
            let (field, value) = match text.iter().position(|&byte| byte == b':') {
                Some(colon) => (&text[..colon], &text[colon + 1..]),
                None => (text, &text[text.len()..]),
            };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            // A comment is a line with an empty field; `id` and `retry` mean nothing to us.
            match field {
                b"data" => {
                    let data = self.data.get_or_insert_default();
                    if !data.is_empty() {
                        data.push(b'\n');
                    }
                    data.extend_from_slice(value);
                }
                b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
                _ => {}
            }
        }
        // The buffer is kept: a line is cheap when nothing is allocated for it.
        line.clear();
        self.line = line;
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let name = std::mem::take(&mut self.name);
        if let Some(data) = self.data.take() {
            events.push(Event { name, data: String::from_utf8_lossy(&data).into_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of `input`, fed in pieces of `size` bytes, with what the end cut off.
    fn parse(input: &[u8], size: usize) -> Vec<(String, String)> {
        let (mut parser, mut events) = (Parser::default(), vec![]);
        for piece in input.chunks(size) {
            parser.push(piece, &mut events).unwrap();
        }
        events.extend(parser.end());
        events.into_iter().map(|event| (event.name, event.data)).collect()
    }

    fn data(texts: &[&str]) -> Vec<(String, String)> {
        texts.iter().map(|text| (String::new(), (*text).to_owned())).collect()
    }

    #[test]
    fn every_split_of_every_form_gives_the_same_events() {
        let cases: &[(&str, &[&str])] = &[
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data:a\n\ndata:  b\n\n", &["a", " b"]),
            (": hello\n\ndata: a\n: keepalive\n\n:\n\n", &["a"]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            ("data\n\n", &[""]),
            ("id: 7\nretry: 10\ndata: a\nother: x\nnonsense\n\n", &["a"]),
            ("\u{feff}data: a\n\n", &["a"]),
            ("data: größe 日本語 🚢\n\n", &["größe 日本語 🚢"]),
            ("data: a\n\ndata: [DONE]", &["a", "[DONE]"]),
            ("data: a\n\ndata: [DONE]\n", &["a", "[DONE]"]),
            ("\n\n\n", &[]),
            ("", &[]),
        ];
        for (input, expected) in cases {
            for size in 1..=input.len().max(1) {
                assert_eq!(parse(input.as_bytes(), size), data(expected), "{input:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_name_belongs_to_one_event() {
        let events = parse(b"event: error\ndata: a\n\ndata: b\n\n", 3);
        assert_eq!(events, vec![("error".into(), "a".into()), (String::new(), "b".into())]);
    }

    #[test]
    fn invalid_bytes_do_not_stop_it() {
        assert_eq!(parse(b"data: \xff\xfe\n\n", 1), data(&["\u{fffd}\u{fffd}"]));
    }

    #[test]
    fn an_event_without_end_is_refused_before_it_fills_the_memory() {
        let long = "x".repeat(64 * 1024);
        for piece in [long.clone(), format!("data: {long}\n"), format!(":{long}")] {
            let mut parser = Parser::default();
            parser.push(b"data: begun", &mut vec![]).unwrap();
            let refused = (1..=20).find(|_| parser.push(piece.as_bytes(), &mut vec![]).is_err());
            assert!(refused.is_some_and(|pushes| pushes >= 15), "{refused:?} pushes of {}…", &piece[..8]);
        }
    }
}
