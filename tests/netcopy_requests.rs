//! A program that embeds a node is asked before a netcopy replaces its database, and hears of the end.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::embedded::{server_with, server_with_options};

#[test]
fn the_embedding_program_can_refuse_a_netcopy() {
    let refuses = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&refuses);
    let target = server_with_options("[HotStandby]\nHSBEnabled=yes\n", |options| {
        options.backup_server = true;
        options.netcopy_requested =
            Some(Box::new(move || if asked.load(Ordering::SeqCst) { Err("not now".into()) } else { Ok(()) }));
    });
    let primary = server_with(&format!("[HotStandby]\nHSBEnabled=yes\nConnect=tcp {}\n", target.port));
    primary.admin("hsb set primary alone");
    let at_target = target.context.events.subscribe();
    let at_primary = primary.context.events.subscribe();
    let next = |events: &crossbeam_channel::Receiver<String>| {
        let mut netcopies = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(30)).ok());
        netcopies.find(|event| event.contains("NETCOPY")).unwrap()
    };

    primary.admin("hsb netcopy");
    assert!(next(&at_target).starts_with("SYS_EVENT_NETCOPYREQ"));
    let end = next(&at_primary);
    assert!(end.starts_with("SYS_EVENT_NETCOPYEND FAILED 14501") && end.contains("not now"), "{end}");

    refuses.store(false, Ordering::SeqCst);
    primary.admin("hsb netcopy");
    assert!(next(&at_target).starts_with("SYS_EVENT_NETCOPYREQ"));
    assert_eq!(next(&at_target), "SYS_EVENT_NETCOPYEND SUCCESS");
    assert_eq!(next(&at_primary), "SYS_EVENT_NETCOPYEND SUCCESS");
    target.admin("hsb state");
}
