//! Reads server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) from pieces of a body.

/// Largest event that is read, in bytes: a snapshot carries a whole result.
const EVENT_MAX_BYTES: usize = 64 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; empty when the server gave none.
    pub(crate) name: String,
    /// Its data; lines are joined by line breaks.
    pub(crate) data: String,
    /// Its position, to resume behind it.
    pub(crate) id: Option<String>,
}

/// Puts events together from pieces that may end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<u8>,
    event: Event,
    has_data: bool,
    size: usize,
}

impl Reader {
    /// Takes the next piece and returns the events that it completes.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        for &byte in piece {
            if byte != b'\n' {
                self.pending.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.pending);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
            self.size += line.len();
            if self.size > EVENT_MAX_BYTES {
                break;
            }
            events.extend(self.take_line(&line));
        }
        if self.size + self.pending.len() > EVENT_MAX_BYTES {
            return Err(format!("the server sent an event of more than {EVENT_MAX_BYTES} bytes"));
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            self.size = 0;
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments keep the connection open; `retry` is ours to decide.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_cut() {
        let body = ": hi\n\nevent: token\r\nid: 7\r\ndata: {\"text\":\"grü\"}\r\n\r\ndata: a\ndata: b\n\n".as_bytes();
        let expected = vec![
            Event { name: "token".into(), data: "{\"text\":\"grü\"}".into(), id: Some("7".into()) },
            Event { name: String::new(), data: "a\nb".into(), id: None },
        ];
        for cut in 0..body.len() {
            let mut reader = Reader::default();
            let mut events = reader.feed(&body[..cut]).unwrap();
            events.extend(reader.feed(&body[cut..]).unwrap());
            assert_eq!(events, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_unfinished_event_is_not_an_event() {
        assert_eq!(Reader::default().feed(b"data: half\n").unwrap(), vec![]);
    }
}
