use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;
use crate::hsb::position::Chain;
use crate::storage::batch::{Batch, BatchHeader};

mod failures;

fn configuration(directory: &tempfile::TempDir, segment_size_bytes: u64) -> LogConfiguration {
    LogConfiguration {
        directory: directory.path().join("log"),
        template: "sol#####.log".into(),
        digit: '#',
        segment_size_bytes,
        database_id: [7; 16],
        maximum_bytes: None,
        medium: Medium::default(),
    }
}

fn batch(before: Position, epoch: u64, size_bytes: usize) -> Batch {
    let header = BatchHeader { before, epoch, count: 1, needs_acknowledgement: true };
    let changes: Vec<u8> = (0..size_bytes).map(|i| (i as u64 * 31 + before.sequence) as u8).collect();
    Batch::seal(header, &changes).unwrap()
}

/// Appends so many batches and returns the position before the first and after each.
fn fill(writer: &mut LogWriter, count: usize, size_bytes: usize) -> Vec<Position> {
    let mut positions = vec![writer.end()];
    for _ in 0..count {
        writer.append(&batch(writer.end(), 1, size_bytes)).unwrap();
        positions.push(writer.end());
    }
    writer.sync().unwrap();
    positions
}

fn read_all(reader: &mut LogReader) -> Vec<Position> {
    std::iter::from_fn(|| reader.next(u64::MAX).unwrap().map(|batch| batch.after)).collect()
}

fn files(configuration: &LogConfiguration) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(&configuration.directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn reads_back_what_was_written_over_many_segments() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 4096);
    let (mut writer, recovered) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    assert!(!recovered.database_ahead);
    let positions = fill(&mut writer, 50, 500);
    fs::write(configuration.directory.join("solstray.log"), b"x").unwrap();
    fs::write(configuration.directory.join("sol1.log"), b"x").unwrap();
    assert!(files(&configuration).len() > 7);
    drop(writer);

    for from in [0, 1, 17, 49, 50] {
        let (writer, mut recovered) = LogWriter::open(configuration.clone(), positions[from]).unwrap();
        assert_eq!(writer.end(), positions[50]);
        assert_eq!(writer.start(), Position::ORIGIN);
        assert_eq!((recovered.truncated_bytes, recovered.database_ahead), (0, false));
        assert_eq!(read_all(&mut recovered.reader), positions[from + 1..]);
    }
    let mut reader = LogReader::open(&configuration, positions[3]).unwrap();
    assert!(reader.next(positions[3].sequence).unwrap().is_none());
    assert_eq!(reader.next(positions[4].sequence).unwrap().unwrap().after, positions[4]);
}

#[test]
fn batch_larger_than_a_segment_gets_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 4096);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    fill(&mut writer, 2, 100);
    fill(&mut writer, 2, 10_000);
    fill(&mut writer, 2, 100);
    assert_eq!(files(&configuration).len(), 4);
    let total: u64 = files(&configuration).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(writer.size_bytes() < total && writer.size_bytes() > 20_000);
    let (_, mut recovered) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    assert_eq!(read_all(&mut recovered.reader).len(), 6);
}

#[test]
fn trap_13_torn_tail_at_every_byte_is_wiped() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 2048);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    let positions = fill(&mut writer, 3, 200);
    let path = files(&configuration).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let length = batch(positions[2], 1, 200).bytes.len();
    let offset = writer.offset_for_tests() as usize - length;
    drop(writer);
    for kept in 0..length {
        let mut torn = whole.clone();
        torn[offset + kept..].fill(0);
        fs::write(&path, &torn).unwrap();
        let (mut writer, recovered) = LogWriter::open(configuration.clone(), positions[2]).unwrap();
        assert_eq!(writer.end(), positions[2], "{kept} bytes kept");
        assert!(recovered.truncated_bytes <= kept as u64);
        assert!(fs::read(&path).unwrap()[offset..].iter().all(|byte| *byte == 0));
        fill(&mut writer, 1, 50);
        drop(writer);
        // Cut off instead of zeroed.
        fs::write(&path, &whole[..offset + kept]).unwrap();
        let (writer, _) = LogWriter::open(configuration.clone(), positions[1]).unwrap();
        assert_eq!(writer.end(), positions[2], "{kept} bytes kept");
        assert_eq!(path.metadata().unwrap().len(), 2048);
    }
}

#[test]
fn trap_13_flipped_bit_in_the_middle_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 2048);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    // Each synced before the next, as with strict durability.
    let positions: Vec<Position> = (0..12).map(|_| fill(&mut writer, 1, 200)[0]).collect();
    drop(writer);
    let all = files(&configuration);
    for (path, is_last) in [(&all[0], false), (all.last().unwrap(), true)] {
        let whole = fs::read(path).unwrap();
        let length = batch(positions[0], 1, 200).bytes.len();
        let head = 16 + 16 + 8 + 32;
        for at in [head, head + 8, head + 40, head + length - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            fs::write(path, &bad).unwrap();
            let error = match LogWriter::open(configuration.clone(), Position::ORIGIN) {
                Err(error) => error,
                Ok((_, mut recovered)) => {
                    assert!(!is_last, "byte {at}");
                    loop {
                        match recovered.reader.next(u64::MAX) {
                            Ok(Some(_)) => {}
                            Ok(None) => panic!("byte {at} was skipped"),
                            Err(error) => break error.into(),
                        }
                    }
                }
            };
            assert_eq!(error.code, Some(Code::LOG_BAD_RECORD), "{error}");
            assert!(error.message().contains(path.to_str().unwrap()), "{error}");
            assert!(error.message().contains(&format!("offset {head}")), "{error}");
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn missing_segment_foreign_segment_and_foreign_batch_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 1024);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    let positions = fill(&mut writer, 12, 200);
    drop(writer);
    let other = LogConfiguration { database_id: [8; 16], ..configuration.clone() };
    let error = LogWriter::open(other, positions[12]).err().unwrap();
    assert_eq!(error.code, Some(Code::DIFFERENT_DATABASE));

    let all = files(&configuration);
    let hidden = directory.path().join("hidden");
    fs::rename(&all[1], &hidden).unwrap();
    let error = LogWriter::open(configuration.clone(), positions[12]).err().unwrap();
    assert_eq!(error.code, Some(Code::LOG_BAD_RECORD));
    fs::rename(&hidden, &all[1]).unwrap();

    // A whole batch of another history at the end.
    let mut stranger = positions[12];
    stranger.chain = Chain([1; 16]);
    let (writer, _) = LogWriter::open(configuration.clone(), positions[12]).unwrap();
    let offset = writer.offset_for_tests();
    let last = files(&configuration).pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.write_all_at(&batch(stranger, 1, 10).bytes, offset).unwrap();
    let error = LogWriter::open(configuration, positions[12]).err().unwrap();
    assert_eq!(error.code, Some(Code::LOG_BAD_RECORD));
}

#[test]
fn reader_follows_a_growing_log_from_another_thread() {
    const BATCHES: u64 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 8192);
    let (mut writer, mut recovered) = LogWriter::open(configuration, Position::ORIGIN).unwrap();
    let (tell, told) = std::sync::mpsc::channel::<u64>();
    let follower = std::thread::spawn(move || {
        let mut seen = 0;
        while let Ok(up_to) = told.recv() {
            while let Some(batch) = recovered.reader.next(up_to).unwrap() {
                assert_eq!(batch.after.sequence, seen + 1);
                seen += 1;
            }
            assert_eq!(seen, up_to);
        }
        seen
    });
    for sequence in 1..=BATCHES {
        writer.append(&batch(writer.end(), 1, (sequence % 700) as usize)).unwrap();
        tell.send(sequence).unwrap();
    }
    drop(tell);
    assert_eq!(follower.join().unwrap(), BATCHES);
}

#[test]
fn truncates_within_and_across_segments_and_appends_again() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 1024);
    for keep in 0..=12 {
        let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
        writer.restart_at(Position::ORIGIN).unwrap();
        let positions = fill(&mut writer, 12, 200);
        assert!(writer.truncate_after(Position { epoch: 9, ..positions[keep] }).is_err());
        writer.truncate_after(positions[keep]).unwrap();
        assert_eq!(writer.end(), positions[keep]);
        let mut expected = positions[1..=keep].to_vec();
        for _ in 0..3 {
            writer.append(&batch(writer.end(), 2, 150)).unwrap();
            expected.push(writer.end());
        }
        writer.sync().unwrap();
        drop(writer);
        let (writer, mut recovered) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
        assert_eq!(read_all(&mut recovered.reader), expected, "kept {keep}");
        assert_eq!(writer.end(), *expected.last().unwrap());
    }
}

#[test]
fn position_not_in_the_log_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 1024);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    let mut positions = fill(&mut writer, 6, 200);
    for _ in 0..6 {
        writer.append(&batch(writer.end(), 3, 200)).unwrap();
        positions.push(writer.end());
    }
    let read = |from: Position| LogReader::open(&configuration, from).err().unwrap();
    let mut other = positions[8];
    other.chain = Chain([9; 16]);
    assert_eq!(read(other), LogReadError::Diverged { parted_at: positions[7] });
    // Its epoch shows that it has nothing of what was written in epoch 3.
    other.epoch = 2;
    assert_eq!(read(other), LogReadError::Diverged { parted_at: positions[6] });
    let longer = Position { sequence: 100, ..positions[12] };
    assert_eq!(read(longer), LogReadError::Diverged { parted_at: positions[12] });

    writer.retain_from(positions[9]).unwrap();
    assert_eq!(files(&configuration).first().unwrap().file_name().unwrap(), "sol00003.log");
    assert!(writer.start().sequence <= 9 && writer.start().sequence > 4);
    assert_eq!(read(positions[1]), LogReadError::NotThere);
    assert!(LogReader::open(&configuration, writer.start()).is_ok());
    let error = LogWriter::open(configuration.clone(), positions[1]).err().unwrap();
    assert_eq!(error.code, Some(Code::LOG_TOO_SHORT));

    writer.retain_from(positions[12]).unwrap();
    assert_eq!(files(&configuration).len(), 2);
}

#[test]
fn database_ahead_of_the_log_restarts_it() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(&directory, 1024);
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    let positions = fill(&mut writer, 6, 200);
    drop(writer);
    let ahead = Position { sequence: 20, ..positions[6] };
    let (mut writer, mut recovered) = LogWriter::open(configuration.clone(), ahead).unwrap();
    assert!(recovered.database_ahead);
    assert_eq!((writer.start(), writer.end()), (ahead, ahead));
    assert!(read_all(&mut recovered.reader).is_empty());
    fill(&mut writer, 2, 20);
    assert_eq!(read_all(&mut recovered.reader).len(), 2);
    assert_eq!(files(&configuration).len(), 1);
}

#[test]
fn log_in_memory_drops_what_is_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = LogConfiguration { maximum_bytes: Some(4096), ..configuration(&directory, 1024) };
    let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
    let positions = fill(&mut writer, 40, 300);
    assert_eq!(files(&configuration).len(), 4);
    assert!(writer.start().sequence > 28);
    assert_eq!(LogReader::open(&configuration, positions[20]).err(), Some(LogReadError::NotThere));
    let mut reader = LogReader::open(&configuration, writer.start()).unwrap();
    assert_eq!(read_all(&mut reader).last(), positions.last());
    // One that is larger than all of it is kept alone.
    fill(&mut writer, 1, 9000);
    assert_eq!(files(&configuration).len(), 1);
}

#[test]
fn template_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    for template in ["sol.log", "a#b#.log", "dir/sol##.log", "sol1##.log"] {
        let configuration = LogConfiguration { template: template.into(), ..configuration(&directory, 1024) };
        assert!(LogWriter::open(configuration, Position::ORIGIN).is_err(), "{template}");
    }
}
