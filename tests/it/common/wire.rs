//! A client that shows each message of the SQL port as it is, and sends them one by one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hotstandby::sql::users::{hmac, sha256};

/// A session.
pub struct Wire(TcpStream);

impl Wire {
    /// Logs in and waits until it may ask.
    pub fn connect(port: u16, user: &str, password: &str) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut wire = Wire(stream);
        let mut start = 196_608u32.to_be_bytes().to_vec();
        start.extend_from_slice(format!("user\0{user}\0\0").as_bytes());
        wire.write(&[&(start.len() as u32 + 4).to_be_bytes()[..], &start].concat());
        wire.log_in(password);
        while wire.next().unwrap() != "Z I" {}
        wire
    }

    fn log_in(&mut self, password: &str) {
        self.read().unwrap();
        let first = "n=,r=nonce";
        let message = format!("n,,{first}");
        let length = (message.len() as u32).to_be_bytes();
        self.send(b'p', &[b"SCRAM-SHA-256\0", &length[..], message.as_bytes()].concat());
        let answer = String::from_utf8(self.read().unwrap().1[4..].to_vec()).unwrap();
        let attribute = |name: &str| answer.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let salt = STANDARD.decode(attribute("s=")).unwrap();
        let mut salted = [0; 32];
        let rounds = attribute("i=").parse().unwrap();
        pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.as_bytes(), &salt, rounds, &mut salted);
        let key = hmac(&salted, b"Client Key");
        let last = format!("c=biws,r={}", attribute("r="));
        let signature = hmac(&sha256(&key), format!("{first},{answer},{last}").as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        self.send(b'p', format!("{last},p={}", STANDARD.encode(proof)).as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// One message.
    pub fn send(&mut self, kind: u8, body: &[u8]) {
        self.write(&message(kind, body));
    }

    /// A simple query.
    pub fn query(&mut self, text: &str) {
        self.send(b'Q', format!("{text}\0").as_bytes());
    }

    /// Each statement parsed, bound and executed, all in one piece; then Sync, if wanted, in the same piece.
    pub fn pipeline(&mut self, statements: &[&str], sync: bool) {
        let mut bytes = Vec::new();
        for statement in statements {
            bytes.extend(message(b'P', format!("\0{statement}\0\0\0").as_bytes()));
            bytes.extend(message(b'B', &[0; 8]));
            bytes.extend(message(b'E', &[0; 5]));
        }
        if sync {
            bytes.extend(message(b'S', b""));
        }
        self.write(&bytes);
    }

    /// Rows of a COPY that has begun, and its end.
    pub fn copy(&mut self, lines: &str) {
        self.send(b'd', lines.as_bytes());
        self.send(b'c', b"");
    }

    /// Leaves without a word.
    pub fn leave(self) {
        self.0.shutdown(Shutdown::Both).unwrap();
    }

    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        }
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        self.0.read_exact(&mut body).unwrap();
        Some((head[0], body))
    }

    /// The next message for people: its type; what CommandComplete and ReadyForQuery say; of an error its severity,
    /// SQLSTATE and number. Changed settings are left out. None: the server has ended the connection.
    pub fn next(&mut self) -> Option<String> {
        let (kind, body) = std::iter::from_fn(|| self.read()).find(|(kind, _)| *kind != b'S')?;
        let text = String::from_utf8_lossy(&body);
        let field = |name: char| text.split('\0').find_map(|part| part.strip_prefix(name)).unwrap_or("-");
        let kind = char::from(kind);
        Some(match kind {
            'C' | 'Z' => format!("{kind} {}", text.trim_end_matches('\0')),
            'E' => format!("{kind} {} {} {}", field('S'), field('C'), field('D')),
            _ => kind.to_string(),
        })
    }

    /// SQLSTATE and words of the next error, whatever comes before it. The client library of the other tests forgets an error
    /// with which the server ends the connection, if it finds the end when it reads the error.
    pub fn error(&mut self) -> (String, String) {
        let (_, body) = std::iter::from_fn(|| self.read()).find(|(kind, _)| *kind == b'E').unwrap();
        let text = String::from_utf8(body).unwrap();
        let field =
            |name: char| text.split('\0').find_map(|part| part.strip_prefix(name)).unwrap().to_owned();
        (field('C'), field('M'))
    }

    /// All that comes up to ReadyForQuery or to the end of the connection.
    pub fn answer(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(next) = self.next() {
            all.push(next);
            if all.last().unwrap().starts_with('Z') {
                break;
            }
        }
        all
    }

    /// All that comes up to the end of the connection.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}
