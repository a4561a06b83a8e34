# What has to pass before a change lands; never writes to the tree. The same as CI.
verify:
    .ci/run

# Formatting, and what clippy can mend by itself.
fix:
    cargo fmt
    cargo clippy --fix --allow-dirty --allow-staged --all-targets

# A pair of servers that stays; prints how to use it and how to stop it.
pair:
    cargo run --release -- demo --stay

# This pair against a synchronous PostgreSQL pair, side by side in one run (needs PostgreSQL 15 or newer and pgbench).
bench *options:
    benches/pair.sh {{options}}

# Mutated and invented input for every decoder and parser; more cases than in `cargo test`.
fuzz cases="100000":
    HSB_FUZZ_CASES={{cases}} cargo test --release --test fuzz -- --nocapture

# The pair under faults in virtual time; a seed is a run. Shows seeds a minute, faults and transitions reached.
simulate seeds="5000":
    HSB_SIM_SEEDS={{seeds}} cargo test --test simulation nothing_acknowledged -- --nocapture

# The same with new seeds until a violation.
simulate-endlessly:
    HSB_SIM_SEEDS=0 cargo test --test simulation nothing_acknowledged -- --nocapture

# Back-pressure with more than in `cargo test`: a 1 GB transaction, a secondary that stands still for a minute.
back-pressure:
    HSB_TRANSACTION_MB=1024 HSB_STOPPED_SECONDS=60 HSB_UNREAD_MB=2000 cargo test --release --test it back_pressure

# How long writes pause: failover by the watchdog after a crash and after silence, switchover under load.
bench-failover *options:
    cargo bench --bench failover -- {{options}}

# A pair under what a careless network and a service manager do to it, for ten minutes: silent sockets, health checks, SIGHUP.
bench-service *options:
    cargo bench --bench service -- {{options}}
