//! HotStandby.MaxLogSize: a primary without its secondary does not keep the log for ever.

use crate::common::{program, sql, state};
use hotstandby::demo::pair::{Pair, Server};

fn log_bytes_on_disk(server: &Server) -> u64 {
    let files = std::fs::read_dir(&server.directory).unwrap().map(|entry| entry.unwrap());
    let logs = files.filter(|file| file.file_name().to_str().unwrap().ends_with(".log"));
    logs.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn at_its_limit_the_log_is_given_up_for_good() {
    let root = tempfile::tempdir().unwrap();
    let extra = "MaxLogSize=8M\n[Logging]\nMinSplitSize=1M\n";
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    pair.start().unwrap();
    let mut session = sql(&pair.first);
    session.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, data BYTEA)").unwrap();
    let mut insert =
        |id: i64| session.execute("INSERT INTO t VALUES ($1, randomblob(2000000))", &[&id]).unwrap();
    // Connected, the secondary has what the log holds: it is deleted, and the state stays.
    for id in 0..6 {
        insert(id);
    }
    pair.first.expect("makecp").unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ACTIVE");
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    for id in 10..16 {
        insert(id);
    }
    assert_eq!(state(&pair.first), "PRIMARY ALONE", "before the checkpoint");
    pair.first.expect("makecp").unwrap();
    pair.first.wait_for("hsb state", "STANDALONE").unwrap();
    let told = crate::common::settled_messages(&pair.first);
    assert!(told.contains("30538"), "{told}");
    assert!(told.contains("(HotStandby.MaxLogSize) this server goes on without it"), "no warning: {told}");
    // It goes on, and the log is no longer kept for anybody.
    insert(20);
    pair.first.expect("makecp").unwrap();
    crate::common::wait_until("the log is released", || log_bytes_on_disk(&pair.first) <= 5_000_000);
    let size: u64 = pair.first.expect("info logsize").unwrap().parse().unwrap();
    assert!(size <= 5_000_000, "{size}");
    assert_eq!(pair.first.connect().unwrap().0, 14707);
    // The way back: a copy.
    pair.first.expect("hsb set primary alone").unwrap();
    pair.first.expect("hsb netcopy").unwrap();
    pair.first.wait_for("hsb status copy", "SUCCESS").unwrap();
    pair.connect().unwrap();
}
