//! Files that are the server's own: nothing is written through a link, and a database that goes away under a server ends it.

use std::os::unix::fs::symlink;

use crate::common::fixture::{fixture, has_row, insert};
use crate::common::{checksum, messages, wait_until};

#[test]
fn a_backup_is_not_written_through_a_link() {
    let fixture = fixture("");
    let first = &fixture.pair.first;
    let before = checksum(first);
    let directory = first.directory.parent().unwrap().join("backup");
    std::fs::create_dir(&directory).unwrap();
    for name in ["solid.db.copying", "solid.db.lock"] {
        // An earlier try may have left its own.
        let _ = std::fs::remove_file(directory.join(name));
        symlink(first.database_file(), directory.join(name)).unwrap();
        let (mut code, mut text) = first.ask(&format!("backup {}", directory.display())).unwrap();
        if code == 0 {
            wait_until("the backup has ended", || first.ask("hsb status copy").unwrap().0 != 14003);
            (code, text) = first.ask("hsb status copy").unwrap();
        }
        assert!(code != 0 && text.contains(name) && text.contains("a link"), "{code} {text}");
        std::fs::remove_file(directory.join(name)).unwrap();
        assert_eq!(checksum(first), before);
    }
    // A name that the file shares with the database.
    std::fs::hard_link(first.database_file(), directory.join("solid.db.copying")).unwrap();
    first.expect(&format!("backup {}", directory.display())).unwrap();
    first.wait_for("hsb status copy", "SUCCESS").unwrap();
    assert_eq!(checksum(first), before);
}

#[test]
fn a_primary_whose_database_is_gone_does_not_stay_one() {
    for overwritten in [false, true] {
        let fixture = fixture("");
        let pair = &fixture.pair;
        if overwritten {
            let file = std::fs::OpenOptions::new().write(true).open(pair.first.database_file()).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 8192], 0).unwrap();
        } else {
            std::fs::remove_file(pair.first.database_file()).unwrap();
        }
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        let said = |text: &str| messages(&pair.first).contains(text);
        crate::common::wait_until("it says why", || said("stopping at once") && said("solid.db was "));
        pair.second.expect("hsb set primary alone").unwrap();
        insert(&pair.second, 10).join().unwrap().unwrap();
        assert!(has_row(&pair.second, 1));
    }
}

#[test]
fn a_database_file_that_is_a_link_is_refused() {
    let mut fixture = fixture("");
    let first = &mut fixture.pair.first;
    first.stop().unwrap();
    let (file, moved) = (first.database_file(), first.directory.join("elsewhere.db"));
    std::fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    assert!(first.start(&[]).is_err());
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(&moved, &file).unwrap();
    first.start(&[]).unwrap();
}
