//! What solid.ini says that is allowed and hardly meant, or has no effect here: warnings for the message log.
//!
//! Not here: what is wrong (`parameters`, `kind`).

use std::net::{IpAddr, UdpSocket};

use super::address::{ConnectString, ListenAddress};
use super::getters::listen_address;
use super::kind::{self, Checked};
use super::parser::Entry;
use super::registry::{self, Id};

/// What a value that was written for solidDB says and this server does not do.
pub(super) fn carried_over(id: Id, entry: &Entry) -> Option<String> {
    match id {
        Id::DatabaseFile => {
            let (_, size) = kind::file_and_size(&entry.value);
            size.map(|size| format!("{id}: '{size}' behind the file's name has no effect; the disk is the limit of the database."))
        }
        Id::Listen if entry.value.contains(',') => {
            let used = id.definition().kind.check(&entry.value).ok()?.text;
            Some(format!("{id} has several names; this server listens at '{used}' only."))
        }
        _ => None,
    }
}

/// What is allowed but hardly meant.
pub(super) fn doubts<'a>(value: &dyn Fn(Id) -> &'a Checked) -> Vec<String> {
    let set = |id: &&Id| value(**id).text != id.definition().factory;
    let mut doubts: Vec<String> =
        registry::NOT_USED.iter().filter(set).map(|id| format!("{id} is set and has no effect.")).collect();
    let (interval, timeout) = (value(Id::PingInterval).number, value(Id::PingTimeout).number);
    if timeout > 0 && timeout <= interval {
        doubts.push(format!("HotStandby.PingTimeout ({timeout} ms) is not longer than PingInterval ({interval} ms): the connection will break for no reason."));
    }
    match ConnectString::parse(&value(Id::Connect).text) {
        _ if value(Id::HsbEnabled).number == 0 => {}
        Err(_) => doubts.push(
            "HotStandby.HSBEnabled is yes but HotStandby.Connect is not set: the servers cannot connect."
                .to_owned(),
        ),
        Ok(peer) if is_own(&peer, &listen_address(value(Id::Listen), value(Id::ReadTimeout))) => {
            doubts.push(format!("HotStandby.Connect ('{peer}') is this server itself: the servers cannot connect. Set it to the other server's address."));
        }
        Ok(_) => {}
    }
    doubts
}

/// Whether a server that listens there would reach itself, as far as that can be said without asking for names.
fn is_own(peer: &ConnectString, listen: &ListenAddress) -> bool {
    let address = |host: &str| match host.parse::<IpAddr>() {
        Err(_) if host.eq_ignore_ascii_case("localhost") => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.ok(),
    };
    // Only an address of this machine can be bound.
    let is_here = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    peer.port == listen.port
        && match (address(&peer.host), address(&listen.host)) {
            (Some(peer), Some(listen)) if listen.is_unspecified() => is_here(peer),
            (Some(peer), Some(listen)) => peer == listen,
            _ => peer.host.eq_ignore_ascii_case(&listen.host),
        }
}
