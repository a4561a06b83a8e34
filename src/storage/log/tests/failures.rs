//! Disks that are full, that fail, that lose what was not synced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

/// Fails the so manieth operation of a kind and, `for_good`, all after it; a write after `written` bytes.
fn fault(kind: Operation, from: usize, for_good: bool, written: usize, error: i32) -> Fault {
    let count = AtomicUsize::new(0);
    Arc::new(move |operation| {
        if operation != kind {
            return None;
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let fails = number == from || (for_good && number > from);
        fails.then(|| (written, io::Error::from_raw_os_error(error)))
    })
}

fn opened(segment_size_bytes: u64) -> (tempfile::TempDir, LogConfiguration, LogWriter) {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, segment_size_bytes);
    let (writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    (directory, configuration, writer)
}

#[test]
fn batch_without_room_leaves_nothing_and_can_be_tried_again() {
    // The body after 37 bytes, the header after 5; the next write is the one that takes it back.
    for (number, written) in [(0, 37), (1, 5)] {
        let (_directory, configuration, mut writer) = opened(4096);
        let positions = fill(&mut writer, 2, 300);
        let offset = writer.offset_for_tests() as usize;
        writer.set_fault(fault(Operation::Write, number, false, written, libc::ENOSPC));
        let next = batch(writer.end(), 1, 300);
        assert!(matches!(writer.append(&next), Err(WriteError::NoRoom(_))));
        assert_eq!(writer.end(), positions[2]);
        let path = files(&configuration).pop().unwrap();
        assert!(fs::read(&path).unwrap()[offset..].iter().all(|byte| *byte == 0), "something was left");
        // Another, shorter one in its place, as after the first was refused.
        writer.append(&batch(writer.end(), 1, 20)).unwrap();
        writer.sync().unwrap();
        let end = writer.end();
        drop(writer);
        let (writer, mut recovered) = LogWriter::open(configuration, Position::ORIGIN).unwrap();
        assert_eq!((writer.end(), recovered.truncated_bytes), (end, 0));
        assert_eq!(read_all(&mut recovered.reader).len(), 3);
    }
}

#[test]
fn segment_without_room_is_made_later() {
    let (_directory, configuration, mut writer) = opened(1024);
    fill(&mut writer, 2, 300);
    writer.set_fault(fault(Operation::Allocate, 0, false, 0, libc::ENOSPC));
    let next = batch(writer.end(), 1, 600);
    assert!(matches!(writer.append(&next), Err(WriteError::NoRoom(_))));
    assert_eq!(files(&configuration).len(), 1, "an unfinished segment was left");
    writer.append(&next).unwrap();
    assert_eq!(files(&configuration).len(), 2);
    // Room for a batch that does not fit the segment, made in advance.
    writer.set_fault(fault(Operation::Allocate, 0, false, 0, libc::ENOSPC));
    assert!(matches!(writer.reserve(900), Err(WriteError::NoRoom(_))));
    writer.reserve(900).unwrap();
    writer.append(&batch(writer.end(), 1, 700)).unwrap();
    writer.sync().unwrap();
    let (_, mut recovered) = LogWriter::open(configuration, Position::ORIGIN).unwrap();
    assert_eq!(read_all(&mut recovered.reader).len(), 4);
}

#[test]
fn failed_sync_or_write_is_for_good() {
    for (kind, error) in
        [(Operation::Sync, libc::ENOSPC), (Operation::Sync, libc::EIO), (Operation::Write, libc::EIO)]
    {
        let (_directory, _, mut writer) = opened(4096);
        fill(&mut writer, 1, 100);
        // Once: a second try would succeed.
        writer.set_fault(fault(kind, 0, false, 0, error));
        let next = batch(writer.end(), 1, 100);
        let first = writer.append(&next).and_then(|()| writer.sync());
        assert!(matches!(first, Err(WriteError::Failed(_))), "{kind:?} {first:?}");
        assert!(matches!(writer.sync(), Err(WriteError::Failed(_))));
        assert!(matches!(writer.append(&next), Err(WriteError::Failed(_))));
        assert!(matches!(writer.reserve(1), Err(WriteError::Failed(_))));
    }
    // The sync of a new segment.
    let (_directory, _, mut writer) = opened(1024);
    fill(&mut writer, 2, 300);
    writer.set_fault(fault(Operation::Sync, 0, false, 0, libc::ENOSPC));
    assert!(matches!(writer.append(&batch(writer.end(), 1, 600)), Err(WriteError::Failed(_))));
    assert!(matches!(writer.append(&batch(writer.end(), 1, 600)), Err(WriteError::Failed(_))));
}

/// What a log that was not synced since `synced` looks like when the batches `lost` never reached the disk.
fn after_power_cut(synced: usize, lost: &[usize], count: usize) -> (tempfile::TempDir, LogConfiguration) {
    let (directory, configuration, mut writer) = opened(1 << 16);
    let mut places = Vec::new();
    for number in 0..count {
        let next = batch(writer.end(), 1, 200 + 10 * number);
        places.push((writer.offset_for_tests(), next.bytes.len()));
        writer.append(&next).unwrap();
        if number < synced {
            writer.sync().unwrap();
        }
    }
    drop(writer);
    let path = files(&configuration).pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for number in lost {
        let (offset, length) = places[*number];
        file.write_all_at(&vec![0; length], offset).unwrap();
    }
    (directory, configuration)
}

#[test]
fn hole_in_what_was_not_synced_is_tail() {
    for (synced, lost) in [(3, vec![3]), (3, vec![5, 6]), (0, vec![0]), (3, vec![7]), (7, vec![7])] {
        let (_directory, configuration) = after_power_cut(synced, &lost, 8);
        let (writer, mut recovered) = LogWriter::open(configuration, Position::ORIGIN).unwrap();
        assert_eq!(writer.end().sequence, lost[0] as u64, "synced {synced}, lost {lost:?}");
        assert_eq!(recovered.truncated_bytes > 0, lost[0] < 7);
        assert_eq!(read_all(&mut recovered.reader).len(), lost[0]);
    }
}

#[test]
fn hole_in_what_was_synced_is_damage() {
    for (synced, lost) in [(4, vec![3]), (8, vec![2]), (5, vec![0]), (4, vec![3, 4, 5, 6])] {
        let (_directory, configuration) = after_power_cut(synced, &lost, 8);
        let error = LogWriter::open(configuration, Position::ORIGIN).map(|_| ()).unwrap_err();
        assert_eq!(error.code, Some(Code::LOG_BAD_RECORD), "synced {synced}, lost {lost:?}");
    }
}

/// What recovery found is on disk before anything is built on it: after the end of the process alone it need not be.
#[test]
fn what_recovery_keeps_counts_as_synced() {
    let (_directory, configuration, mut writer) = opened(1 << 16);
    let positions = (0..4).map(|_| {
        writer.append(&batch(writer.end(), 1, 100)).unwrap();
        writer.end()
    });
    let positions: Vec<Position> = positions.collect();
    drop(writer);
    let (mut writer, _) = LogWriter::open(configuration.clone(), positions[3]).unwrap();
    let first = 16 + 16 + 8 + 32;
    writer.append(&batch(writer.end(), 1, 100)).unwrap();
    drop(writer);
    let path = files(&configuration).pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 20], first).unwrap();
    assert!(LogWriter::open(configuration, Position::ORIGIN).is_err());
}

#[test]
fn distance_to_what_is_synced_survives_its_bits() {
    let far = Position { sequence: 100_000, ..Position::ORIGIN };
    let stored = |unsynced: u64| {
        let sealed = batch(far, 1, 10);
        let header = crate::codec::header_with_flags(&sealed.bytes, unsynced_flags(&sealed, unsynced));
        let bytes = [&header, &sealed.bytes[16..]].concat();
        let read = Batch::parse(bytes.into()).unwrap();
        assert!(read.header.needs_acknowledgement);
        assert_eq!(read.after, sealed.after);
        synced_before(&read)
    };
    assert_eq!(stored(0), Some(100_000));
    assert_eq!(stored(32_766), Some(67_234));
    assert_eq!(stored(32_767), None);
    assert_eq!(stored(99_999), None);
}

#[test]
fn a_full_disk_that_stays_full_is_told_each_time() {
    let (_directory, _, mut writer) = opened(4096);
    let room = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&room);
    writer.set_fault(Arc::new(move |_| (seen.load(Ordering::Relaxed) == 0).then(|| (3, full()))));
    let next = batch(writer.end(), 1, 100);
    for _ in 0..3 {
        assert!(matches!(writer.append(&next), Err(WriteError::NoRoom(_))));
    }
    room.store(1, Ordering::Relaxed);
    writer.append(&next).unwrap();
    writer.sync().unwrap();
}
