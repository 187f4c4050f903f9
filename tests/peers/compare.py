#!/usr/bin/env python3
"""Ours and theirs on this machine, in one run and one table: `tramite bench`, and the brokers that are installed.

Needs Python, openssl, and cargo to build the load client beside this file. A peer that is not installed is said and left out.
Every server is started here with mutual TLS on the loopback, in a temporary folder, with its own defaults of durability, and ended
here. The same load for all: 2 KiB, four recipients, so many unconfirmed at a time. What Tramite does besides (signatures made and
checked by three sides, receipts) is not asked of the others: the table says what the whole costs, not who is the better broker.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
READY_S = 60
"""A server listens within this, or is said not to."""
LOAD_S = 600
"""A load ends within this, or its peer is left out."""


class Absent(Exception):
    """A peer that cannot be measured, and why."""


def say(sentence):
    print(sentence, file=sys.stderr, flush=True)


def run(words, **options):
    """A program to its end; what stops that is why its peer is absent."""
    name = pathlib.Path(words[0]).name
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True, **options)
    except subprocess.TimeoutExpired as late:
        raise Absent(f"{name} did not end within {late.timeout:.0f} s") from None
    except subprocess.CalledProcessError as failed:
        why = failed.stderr.strip()[-200:] or f"exit code {failed.returncode}"
        raise Absent(f"{name} failed: {why}") from None


def tool(*names):
    """The first of these programs that is there: on the path, or where packages put it."""
    for name in names:
        found = shutil.which(name) or next(iter(sorted(glob.glob(name), reverse=True)), None)
        if found:
            return found
    raise Absent("it is not installed")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def certificates(folder):
    """An authority, a server and a client, good for a day."""
    folder.mkdir()
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    key = lambda name: run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
    key("ca")
    run("req", "-x509", "-new", "-key", "ca.key", "-sha256", "-days", "1", "-subj", "/CN=bench-ca", "-out", "ca.pem")
    for name, subject in [("server", "localhost"), ("client", "bench")]:
        key(name)
        run("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={subject}", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
            "keyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"
        )
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
            "-sha256", "-extfile", f"{name}.ext", "-out", f"{name}.pem")


@contextlib.contextmanager
def server(words, folder, port, **options):
    """Runs a server until it is no longer needed; waits until it listens."""
    log = folder / "log"
    with open(log, "ab") as out:
        process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=out, **options)
    try:
        until = time.monotonic() + READY_S
        while True:
            if process.poll() is not None or time.monotonic() > until:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise Absent(f"it does not start: {' '.join(last)[:160]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nats(folder, certs, options=""):
    program = tool("nats-server", "/usr/sbin/nats-server")
    port = free_port()
    (folder / "conf").write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'tls {{ cert_file: "{certs}/server.pem", key_file: "{certs}/server.key", ca_file: "{certs}/ca.pem", '
        f'verify: true }}\njetstream {{ store_dir: "{folder}/data", max_mem: 1G, max_file: 20G {options} }}\n'
    )
    with server([program, "-c", "conf"], folder, port):
        yield "nats", port


def nats_synced(folder, certs):
    return nats(folder, certs, ", sync_interval: always")


@contextlib.contextmanager
def rabbit(folder, certs):
    # The script behind the one on the path, which would change to another user and other folders.
    program = tool("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
    port, beam, epmd = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp = none\nlisteners.ssl.default = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {certs}/ca.pem\nssl_options.certfile = {certs}/server.pem\n"
        f"ssl_options.keyfile = {certs}/server.key\nssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\ndefault_user = bench\ndefault_pass = bench\n"
    )
    (folder / "plugins").write_text("[].\n")
    own = {
        "HOME": folder, "RABBITMQ_BASE": folder, "RABBITMQ_MNESIA_BASE": folder / "mnesia",
        "RABBITMQ_LOG_BASE": folder / "logs", "RABBITMQ_CONFIG_FILE": folder / "rabbitmq",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": f"bench{port}@localhost", "RABBITMQ_DIST_PORT": beam, "ERL_EPMD_PORT": epmd,
        "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_PID_FILE": folder / "pid",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    # Its port mapper would outlive it, were it not started here.
    mapper = [tool("/usr/lib/erlang/erts-*/bin/epmd", "epmd"), "-port", str(epmd), "-address", "127.0.0.1"]
    with server(mapper, folder, epmd), server(
        [program], folder, port, env=os.environ | {name: str(value) for name, value in own.items()}
    ):
        yield "rabbit", port


@contextlib.contextmanager
def postgres(folder, certs):
    bins = pathlib.Path(tool("/usr/lib/postgresql/*/bin/initdb", "initdb")).parent
    user = {}
    if os.geteuid() == 0:
        # It refuses to run as root; its package made this user.
        try:
            user = {"user": pwd.getpwnam("postgres").pw_uid, "group": pwd.getpwnam("postgres").pw_gid}
        except KeyError:
            raise Absent("it does not run as root, and there is no user postgres") from None
        shutil.chown(folder, user["user"], user["group"])
    data, port = folder / "data", free_port()
    make = [bins / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8"]
    run(make, cwd=folder, **user)
    for name in ["ca.pem", "server.pem", "server.key"]:
        shutil.copy(certs / name, data / name)
        os.chmod(data / name, 0o600)
        if user:
            shutil.chown(data / name, user["user"], user["group"])
    with open(data / "postgresql.conf", "a") as settings:
        settings.write(
            f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\nssl = on\n"
            "ssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n"
            "max_connections = 320\nshared_buffers = 512MB\nmax_wal_size = 4GB\n"
        )
    (data / "pg_hba.conf").write_text("local all postgres trust\nhostssl all all 127.0.0.1/32 cert\n")
    with server([bins / "postgres", "-D", data], folder, port, **user):
        ask = [bins / "psql", "-h", folder, "-p", str(port), "-U", "postgres", "-q", "-c"]
        for sentence in ["CREATE ROLE bench SUPERUSER LOGIN", "CREATE DATABASE bench OWNER bench"]:
            run([*ask, sentence], cwd=folder, **user)
        yield "postgres", port


PEERS = [
    ("NATS JetStream", "syncs every two minutes", nats),
    ("NATS JetStream, sync always", "syncs each message", nats_synced),
    ("RabbitMQ, quorum queues", "syncs each batch", rabbit),
    ("PostgreSQL, outbox", "syncs each commit group", postgres),
]


def measure(client, peer, certs, asked, in_flight):
    """Rows of one peer; an extra round before them does not count."""
    title, what, start = peer
    with tempfile.TemporaryDirectory(prefix="tramite-peers-") as folder:
        os.chmod(folder, 0o755)
        with start(pathlib.Path(folder), certs) as (name, port):
            def load(messages, in_flight):
                words = [client, name, "--address", f"127.0.0.1:{port}", "--certs", certs,
                         "--messages", str(messages), "--in-flight", str(in_flight)]
                line = json.loads(run(words, timeout=LOAD_S).stdout)
                if line["again"]:
                    raise Absent(f"{line['again']} messages arrived again")
                return line
            load(max(asked.messages // 10, 100), 64)
            for one in in_flight:
                line = load(asked.messages if one > 1 else max(asked.messages // 10, 100), one)
                yield [line["peer"] if "sync always" not in title else line["peer"] + ", sync always", what, str(one),
                       *figures(line["messages_per_s"], line["acknowledgement_us"], line["delivery_us"])]


def figures(rate, acknowledgement, delivery):
    times = [f"{spread['p50'] / 1000:.2f} / {spread['p99'] / 1000:.2f}" for spread in (acknowledgement, delivery)]
    return [f"{rate:.0f}", *times]


def ours(tramite, asked, in_flight):
    """Our rows. Nobody waits for a receipt before the next message, as nobody does with the others."""
    for one in in_flight:
        words = [tramite, "bench", "--json", "--duration", str(asked.duration),
                 "--in-flight", str(one), "--unsettled", str(max(16 * one, 1_024))]
        # In a session of its own: an interrupt comes from here, so that it can end its gateway and remove its folder.
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as bench:
            try:
                answer, errors = bench.communicate()
            except KeyboardInterrupt:
                bench.send_signal(signal.SIGINT)
                bench.communicate()
                raise
        if bench.returncode != 0:
            sys.exit(f"tramite bench failed: {answer} {errors}")
        row = json.loads(answer)["runs"][0]
        yield ["Tramite", "syncs each group; signed, receipted", str(row["in_flight"]),
               *figures(row["messages_per_s"], row["acknowledgement_us"], row["delivery_us"])]


def build(asked):
    """The load client."""
    words = ["cargo", "build", "--locked", "--manifest-path", HERE / "Cargo.toml"]
    if not asked.debug:
        words.append("--release")
    subprocess.run(words, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
    return target / ("debug" if asked.debug else "release") / "peers"


def arguments():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("tramite", type=pathlib.Path, help="our program, built for release")
    words.add_argument("--messages", type=int, default=40_000, help="to each peer; a tenth with 1 in flight")
    words.add_argument("--duration", type=int, default=10, help="seconds of each run of ours")
    words.add_argument("--debug", action="store_true", help="a client that is built fast and runs slowly: to try, not to measure")
    return words.parse_args()


def main():
    asked = arguments()
    in_flight, rows, missing = [1, 256], [], []
    client = build(asked)
    say("Tramite")
    rows += ours(asked.tramite.resolve(), asked, in_flight)
    with tempfile.TemporaryDirectory(prefix="tramite-peers-") as folder:
        os.chmod(folder, 0o755)
        certs = pathlib.Path(folder) / "certs"
        certificates(certs)
        for peer in PEERS:
            say(peer[0])
            try:
                # All rows of a peer or none.
                rows += list(measure(client, peer, certs, asked, in_flight))
            except Absent as why:
                missing.append(f"{peer[0]} is not in the table: {why}.")
    head = ["", "", "in flight", "messages/s", "to acknowledgement ms", "to delivery ms"]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print("\n".join(missing))


if __name__ == "__main__":
    main()
