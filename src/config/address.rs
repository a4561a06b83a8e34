//! Connect and listen strings: `tcp [-cMS] [-rMS] [host] port`.
//!
//! Not here: resolving names, opening sockets. Invariant: one server's Connect string may be the other's Listen
//! string, so both have the same syntax; without a host both mean this machine only.

use crate::error::ServerError;
use crate::hsb::codes::Code;
use std::fmt;
use std::time::Duration;

/// What a string without a host means.
pub const LOOPBACK_HOST: &str = "127.0.0.1";
/// For those who mean all addresses of the machine.
const EVERY_ADDRESS: &str = "'*' is neither a host nor a port; to listen at every address of this machine write 'tcp 0.0.0.0 port', or 'tcp :: port' for IPv6 as well";
/// Protocols that other products of this kind know and this one does not.
const FOREIGN_PROTOCOLS: &[&str] =
    &["upipe", "nmpipe", "nmp", "shmem", "shm", "netbios", "nbs", "ssl", "dcp"];

/// Where another server is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectString {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `-c`, as it is written.
    connect_timeout: Option<Duration>,
    /// `-r`, as it is written.
    read_timeout: Option<Duration>,
}

impl ConnectString {
    /// `-c`: how long connecting may take; none: as long as the system allows. What is given here if it says nothing.
    pub fn connect_timeout_or(&self, default: Option<Duration>) -> Option<Duration> {
        self.connect_timeout.map_or(default, unless_zero)
    }

    /// `-r`: how long a read may take; none: for ever. What is given here if it says nothing.
    pub fn read_timeout_or(&self, default: Option<Duration>) -> Option<Duration> {
        self.read_timeout.map_or(default, unless_zero)
    }

    /// Reads a connect string; 14502, 14547 or 21300 if it is none.
    pub fn parse(text: &str) -> Result<ConnectString, ServerError> {
        let mut words = text.split_whitespace().peekable();
        let protocol = words.next().unwrap_or_default().to_ascii_lowercase();
        if FOREIGN_PROTOCOLS.contains(&protocol.as_str()) {
            return Err(ServerError::with(Code::PROTOCOL_UNSUPPORTED, format!("Found: '{text}'.")));
        }
        if !matches!(protocol.as_str(), "tcp" | "tcpip") {
            return Err(malformed(text, "it begins with 'tcp'"));
        }
        let (mut connect_timeout, mut read_timeout) = (None, None);
        while let Some(option) = words.next_if(|word| word.starts_with('-')) {
            let milliseconds = option.get(2..).and_then(|digits| digits.parse::<u32>().ok());
            let value = milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()));
            match (option.get(1..2), value) {
                (Some("c"), Some(_)) => connect_timeout = value,
                (Some("r"), Some(_)) => read_timeout = value,
                (Some("r"), None) => {
                    let hint = format!("Found: '{text}'; a number of milliseconds follows -r, as in -r1000.");
                    return Err(ServerError::with(Code::READ_TIMEOUT_INVALID, hint));
                }
                _ => return Err(malformed(text, "the options are -c and -r, each followed by milliseconds")),
            }
        }
        let rest: Vec<&str> = words.collect();
        let (host, port) = match rest.as_slice() {
            [port] => (LOOPBACK_HOST, *port),
            [host, port] => (*host, *port),
            _ => return Err(malformed(text, "a host, which may be left out, and a port follow 'tcp'")),
        };
        let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(malformed(text, "the host is empty"));
        }
        if host == "*" || port == "*" {
            return Err(malformed(text, EVERY_ADDRESS));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => {
                Ok(ConnectString { host: host.to_owned(), port, connect_timeout, read_timeout })
            }
            _ => Err(malformed(text, "the port is a number from 1 to 65535")),
        }
    }
}

fn unless_zero(limit: Duration) -> Option<Duration> {
    Some(limit).filter(|limit| !limit.is_zero())
}

fn malformed(text: &str, rule: &str) -> ServerError {
    ServerError::with(Code::CONNECT_STRING_INVALID, format!("Found: '{text}'; {rule}."))
}

impl fmt::Display for ConnectString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("tcp")?;
        for (option, value) in [("c", self.connect_timeout), ("r", self.read_timeout)] {
            if let Some(value) = value {
                write!(formatter, " -{option}{}", value.as_millis())?;
            }
        }
        write!(formatter, " {} {}", self.host, self.port)
    }
}

/// Where this server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenAddress {
    /// Name or address to bind; loopback unless the parameter names one.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How long a read from a client may take; none: for ever.
    pub read_timeout: Option<Duration>,
}

impl ListenAddress {
    /// True if only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, u16) {
        let parsed = ConnectString::parse(text).unwrap();
        (parsed.host, parsed.port)
    }

    #[test]
    fn hosts_ports_and_options_are_read() {
        assert_eq!(parse("tcp 1964"), ("127.0.0.1".to_owned(), 1964));
        assert_eq!(parse("  TCP   node-b  2000 "), ("node-b".to_owned(), 2000));
        assert_eq!(parse("tcp [::1] 2000"), ("::1".to_owned(), 2000));
        let full = ConnectString::parse("tcp -c1500 -r0 10.0.0.2 1315").unwrap();
        assert_eq!(full.connect_timeout_or(None), Some(Duration::from_millis(1500)));
        assert_eq!(full.read_timeout_or(Some(Duration::from_secs(1))), None);
        assert_eq!(full.to_string(), "tcp -c1500 -r0 10.0.0.2 1315");
        assert_eq!(ConnectString::parse(&full.to_string()).unwrap(), full);
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_code() {
        for (text, number) in [
            ("", 14502),
            ("tcp", 14502),
            ("tcp host", 14502),
            ("tcp 0", 14502),
            ("tcp 70000", 14502),
            ("tcp a b 1", 14502),
            ("tcp *", 14502),
            ("tcp * 1964", 14502),
            ("tcp -c 1964", 14502),
            ("tcp -x5 1964", 14502),
            ("tcp [] 1964", 14502),
            ("tcp -é5 1964", 14502),
            ("udp 1964", 14502),
            ("tcp -rfoo 1964", 14547),
            ("upipe SOLID", 21300),
        ] {
            let error = ConnectString::parse(text).unwrap_err();
            assert_eq!(error.code.unwrap().number(), number, "{text}");
            assert_eq!(
                error.message().contains("0.0.0.0"),
                text.contains('*'),
                "{text}: {}",
                error.message()
            );
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (host, expected) in
            [("127.0.0.1", true), ("127.8.8.8", true), ("::1", true), ("LocalHost", true), ("0.0.0.0", false)]
        {
            let address = ListenAddress { host: host.to_owned(), port: 1, read_timeout: None };
            assert_eq!(address.is_loopback(), expected, "{host}");
        }
    }
}
