//! A program that embeds a node is asked before a netcopy replaces its database, and hears of the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotstandby::services::events::Subscription;

use crate::common::embedded::{server_with, server_with_options};

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
    let mut at_target = target.context.events.subscribe();
    let mut at_primary = primary.context.events.subscribe();
    let next = |events: &mut Subscription| {
        let mut lines = std::iter::from_fn(|| events.wait(Duration::from_secs(30)).ok().flatten());
        lines.find_map(|event| Some(event.line()).filter(|line| line.contains("NETCOPY"))).unwrap()
    };

    primary.admin("hsb netcopy");
    assert!(next(&mut at_target).starts_with("SYS_EVENT_NETCOPYREQ"));
    let end = next(&mut at_primary);
    assert!(end.starts_with("SYS_EVENT_NETCOPYEND FAILED 14501") && end.contains("not now"), "{end}");

    refuses.store(false, Ordering::SeqCst);
    primary.admin("hsb netcopy");
    assert!(next(&mut at_target).starts_with("SYS_EVENT_NETCOPYREQ"));
    assert_eq!(next(&mut at_target), "SYS_EVENT_NETCOPYEND SUCCESS");
    assert_eq!(next(&mut at_primary), "SYS_EVENT_NETCOPYEND SUCCESS");
    target.admin("hsb state");
}
