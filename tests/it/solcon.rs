//! The program solcon, as a script uses it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::connected_pair;
use hotstandby::demo::pair::{ADMINISTRATOR, Server};

/// Exit status, standard output and standard error of a call.
fn solcon(arguments: &[&str], password: &str, input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_solcon"))
        .args(arguments)
        .env("SOLID_USER", ADMINISTRATOR.0)
        .env("SOLID_PASSWORD", password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A call that needs no input does not wait for it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn address(server: &Server) -> String {
    format!("tcp {}", server.port)
}

#[test]
fn scripts_learn_from_output_and_exit_status_how_it_went() {
    let (root, mut pair) = connected_pair("");
    let (first, second) = (address(&pair.first), address(&pair.second));
    let right = |arguments: &[&str], input: &str| solcon(arguments, ADMINISTRATOR.1, input);

    let (status, output, _) = right(&["-e", "hsb state", "-e", "hsb role", &first], "");
    assert_eq!((status, output.as_str()), (0, "PRIMARY ACTIVE\nPRIMARY\n"));
    let (status, output, _) = right(&["-e", "hsb status switch", "--rc", &second], "");
    assert_eq!((status, output.as_str()), (0, "14009\tNO SERVER SWITCH OCCURRED BEFORE\n"), "no failure");

    let (status, output, _) = right(&["-e", "hsb nonsense", "-e", "hsb state", &first], "");
    assert_eq!(status, 1, "{output}");
    assert!(output.contains(" (14526)\n") && output.ends_with("\nPRIMARY ACTIVE\n"), "{output}");
    assert_eq!(output.matches("14526").count(), 1, "{output}");
    let (status, output, errors) = right(&["-e", "watch", "-e", "hsb state", &first], "");
    assert!(status == 2 && output.is_empty() && errors.contains("'watch'"), "{status} {output} {errors}");

    let port = pair.first.port.to_string();
    let input = "-- a comment\n\nhsb state\nquit\nhsb nonsense\n";
    assert_eq!(right(&["tcp", &port], input).1, "PRIMARY ACTIVE\n");
    let (file, password) = (root.path().join("commands"), root.path().join("password"));
    std::fs::write(&file, input).unwrap();
    let watching = root.path().join("watching");
    std::fs::write(&watching, "hsb state\nwatch\n\n-- the end\nhsb role").unwrap();
    let (status, output, _) = right(&["-f", watching.to_str().unwrap(), &first], "");
    assert_eq!((status, output.as_str()), (2, ""));
    std::fs::write(&password, format!("{}\n", ADMINISTRATOR.1)).unwrap();
    let (file, password) = (file.to_str().unwrap(), password.to_str().unwrap());
    let (status, output, errors) = solcon(&["--password-file", password, "-f", file, &second], "wrong", "");
    assert_eq!((status, output.as_str()), (0, "SECONDARY ACTIVE\n"), "{errors}");

    let (status, _, errors) = solcon(&["-e", "hsb state", &first], "wrong", "");
    assert!(status == 2 && errors.contains("password"), "{status} {errors}");

    let mut administrator = pair.first.sql().unwrap();
    administrator.batch_execute("CREATE USER clerk IDENTIFIED BY 'clerk-secret'").unwrap();
    let (status, output, _) = solcon(&["--status", "--once", "-U", "clerk", &first], "clerk-secret", "");
    assert!(status == 1 && output.contains("REFUSES") && output.contains("SYS_CONSOLE_ROLE"), "{output}");
    assert!(!output.contains("NO SERVER ANSWERS"), "{output}");

    let (status, output, _) = right(&["--status", "--once", &first, &second], "");
    assert!(status == 0 && output.contains("The pair is complete"), "{status} {output}");
    pair.second.kill();
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    let (status, output, _) = right(&["--status", "--once", &first, &second], "");
    assert!(
        status == 1 && output.contains("WRITES WAIT") && output.contains("NO ANSWER"),
        "{status} {output}"
    );
    let (status, _, errors) = right(&["-e", "hsb state", &second], "");
    assert!(status == 2 && errors.contains("21306"), "{status} {errors}");
}
