//! A network that really is cut: each server in a network namespace of its own, and a router between them that drops
//! packets without a word. No end of a connection hears of it, nothing is acknowledged by anybody: only time tells.
//!
//! Namespaces need root, `unshare` and `ip`. Without them this test says so and passes; tests/it/common/proxy.rs plays the
//! same with sockets.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::fixture::{QUICK_PINGS, has_row, insert, reconnect};
use crate::common::{assert_identical, has_pending, messages, sql};
use hotstandby::demo::pair::{Pair, Server};

const INSIDE: &str = "HSB_TEST_ROUTER";
const NODES: [&str; 2] = ["10.77.1.2", "10.77.2.2"];

#[test]
fn packets_that_vanish_lose_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        return at_the_router();
    }
    let namespace = ["--net", "--mount", "--propagation", "private"];
    let can = |program: &mut Command| program.output().is_ok_and(|output| output.status.success());
    if !can(Command::new("unshare").args(namespace).args(["ip", "link", "set", "lo", "up"])) {
        return println!("no right or no tools to make network namespaces: not tested");
    }
    // This program once more, in a namespace that is the router's: it ends with its last process.
    let status = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "network_namespaces::packets_that_vanish_lose_nothing", "--nocapture"])
        .env(INSIDE, "yes")
        .status();
    assert!(status.unwrap().success());
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

fn make_network() {
    // The names of namespaces are files there.
    assert!(Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status().unwrap().success());
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    ip("link set lo up");
    for node in [1, 2] {
        let (router, address) = (format!("10.77.{node}.1"), format!("10.77.{node}.2"));
        ip(&format!("netns add node{node}"));
        ip(&format!("link add to{node} type veth peer name eth0 netns node{node}"));
        ip(&format!("address add {router}/24 dev to{node}"));
        ip(&format!("link set to{node} up"));
        ip(&format!("-n node{node} address add {address}/24 dev eth0"));
        ip(&format!("-n node{node} link set eth0 up"));
        ip(&format!("-n node{node} link set lo up"));
        ip(&format!("-n node{node} route add default via {router}"));
    }
}

/// What one server sends to the other vanishes, or does so no more.
fn vanish(from: usize, verb: &str) {
    ip(&format!("rule {verb} from {} to {} blackhole", NODES[from], NODES[1 - from]));
}

fn vanish_both_ways(verb: &str) {
    vanish(0, verb);
    vanish(1, verb);
}

/// A program that becomes a server in the namespace that belongs to its directory.
fn program_in_namespaces(root: &Path) -> PathBuf {
    let path = root.join("solid-in-a-namespace");
    let program = crate::common::program().display();
    let text = format!(
        "#!/bin/sh\ncase \"$2\" in */first) node=node1;; *) node=node2;; esac\nexec ip netns exec $node {program} \"$@\"\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn put_in_namespace(server: &mut Server, node: usize, peer_port: u16) {
    let path = server.directory.join("solid.ini");
    let listen = format!("Listen=tcp {}\n", server.port);
    let connect = format!("Connect=tcp {peer_port}\n");
    let ini = std::fs::read_to_string(&path).unwrap();
    assert!(ini.contains(&listen) && ini.contains(&connect));
    let ini = ini
        .replace(&listen, &format!("Listen=tcp 0.0.0.0 {}\n", server.port))
        .replace(&connect, &format!("Connect=tcp {} {peer_port}\nPeerSecretFile=secret\n", NODES[1 - node]));
    std::fs::write(path, ini).unwrap();
    let secret = server.directory.join("secret");
    std::fs::write(&secret, "the secret of this pair").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    server.host = NODES[node].parse::<IpAddr>().unwrap();
}

fn at_the_router() {
    make_network();
    let root = tempfile::tempdir().unwrap();
    let program = program_in_namespaces(root.path());
    let mut pair = Pair::prepare(&program, root.path(), QUICK_PINGS).unwrap();
    let ports = [pair.first.port, pair.second.port];
    put_in_namespace(&mut pair.first, 0, ports[1]);
    put_in_namespace(&mut pair.second, 1, ports[0]);
    if let Err(error) = pair.start() {
        panic!("{error}\n{}\n{}", messages(&pair.first), messages(&pair.second));
    }
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();

    // A commit is on its way when everything vanishes: it is in doubt until both meet again.
    vanish_both_ways("add");
    let waiting = insert(&pair.first, 1);
    parted(&pair);
    assert!(!waiting.is_finished() && has_pending(&pair.first) && !has_row(&pair.first, 1));
    vanish_both_ways("delete");
    reconnect(&pair);
    waiting.join().unwrap().unwrap();

    // One way only: the batch arrives, and its acknowledgement does not.
    vanish(1, "add");
    let waiting = insert(&pair.first, 2);
    parted(&pair);
    assert!(!waiting.is_finished() && !has_row(&pair.first, 2));
    vanish(1, "delete");
    reconnect(&pair);
    waiting.join().unwrap().unwrap();

    // The secondary takes over meanwhile; the old primary has acknowledged nothing and follows.
    vanish_both_ways("add");
    let waiting = insert(&pair.first, 3);
    parted(&pair);
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 4).join().unwrap().unwrap();
    vanish_both_ways("delete");
    assert_eq!(pair.first.expect("hsb state").unwrap(), "PRIMARY UNCERTAIN");
    pair.first.expect("hsb set secondary alone").unwrap();
    waiting.join().unwrap().unwrap_err();
    reconnect(&pair);
    assert!(has_row(&pair.first, 4) && !has_row(&pair.first, 3));
    assert_identical(&pair);
}

fn parted(pair: &Pair) {
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
}
