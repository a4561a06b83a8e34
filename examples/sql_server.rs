//! A server for trying the SQL session by hand on the stand-in: `sql_server <database file> <port>`, user dba/dba.

use hotstandby::net::pg;
use hotstandby::node::NodeContext;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "try.db".into());
    let port = arguments.next().unwrap_or_else(|| "5499".into());
    let context = match NodeContext::stand_in(path.into()) {
        Ok(context) => context,
        Err(error) => return eprintln!("{error}"),
    };
    let listener = match std::net::TcpListener::bind(format!("127.0.0.1:{port}")) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("{error}"),
    };
    for stream in listener.incoming().flatten() {
        let context = context.clone();
        std::thread::spawn(move || pg::serve(stream, Vec::new(), context));
    }
}
