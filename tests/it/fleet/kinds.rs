//! Several engines that belong together: a master that sentinels watch, and a cluster.

use super::engine::{READY, program, run};
use super::{Fleet, HIT};
use redis::{Cmd, FromRedisValue, Value};
use reflex_tests::within;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::process::Child;

/// What a sentinel says when it watches.
const WATCHES: &str = "+monitor master";

/// Attempts to start one: another program may take its port before it does.
const STARTS_MAX: usize = 5;

/// One engine or sentinel on a port of its own. It is killed when this is dropped.
struct Server {
    child: Child,
    port: u16,
    /// For the other nodes of a cluster.
    bus: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// With these arguments, or as a sentinel with this configuration.
    async fn start(program: &OsStr, arguments: &[&str], sentinel: Option<&str>) -> Self {
        for _ in 0..STARTS_MAX {
            let folder = tempfile::tempdir().expect("a folder");
            let [port, bus] = free_ports();
            let (own, other) = (port.to_string(), bus.to_string());
            let mut all = match sentinel {
                Some(config) => {
                    fs::write(folder.path().join("sentinel.conf"), config).expect("written");
                    vec!["sentinel.conf", "--sentinel"]
                }
                None => vec!["--cluster-port", &other],
            };
            all.extend(["--port", &own, "--bind", "127.0.0.1"]);
            all.extend(arguments);
            let ready = match sentinel {
                Some(_) => WATCHES,
                None => READY,
            };
            if let Some(child) = run(program, folder.path(), &all, ready).await {
                return Self {
                    child,
                    port,
                    bus,
                    _folder: folder,
                };
            }
        }
        panic!("the engine does not start");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn say<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://{}", self.address())).expect("a URL");
        let mut line = client.get_connection().expect("a connection");
        let mut command = Cmd::new();
        command.arg(words);
        command.query(&mut line).expect("a reply")
    }

    /// Asks until the reply is such.
    async fn until<T: FromRedisValue>(&self, words: &[&str], is: impl Fn(&T) -> bool) {
        within(&words.join(" "), async {
            while !is(&self.say(words)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn kill(&mut self) {
        self.child.kill().expect("a running engine");
        self.child.wait().expect("its end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that no program has by now.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    sockets.map(|socket| socket.local_addr().expect("an address").port())
}

#[tokio::test]
async fn a_failover_by_sentinels_fails_no_request() {
    let Some(program) = program() else {
        return;
    };
    let mut master = Server::start(&program, &[], None).await;
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::start(&program, &["--replicaof", &of], None).await;
    replica
        .until(&["ROLE"], |role: &Value| {
            format!("{role:?}").contains("connected")
        })
        .await;
    let config = format!(
        "sentinel monitor main {of} 1\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 5000\n"
    );
    let sentinel = Server::start(&program, &[], Some(&config)).await;
    sentinel
        .until(
            &["SENTINEL", "REPLICAS", "main"],
            |replicas: &Vec<Value>| !replicas.is_empty(),
        )
        .await;
    // The first one named is not there.
    let [nobody, _] = free_ports();
    let url = format!(
        "redis+sentinel://127.0.0.1:{nobody},{}/main",
        sentinel.address()
    );
    let fleet = Fleet::at(None, url, 2, "").await;
    fleet.share(0, "before").await;
    assert_eq!(fleet.ask(1, "before").await.reflex(), HIT);
    fleet
        .under_load(async {
            master.kill();
            fleet.until_well().await;
        })
        .await;
    fleet.share(0, "after").await;
    assert_eq!(fleet.ask(1, "after").await.reflex(), HIT);
    let said = fleet
        .purge(0, &serde_json::json!({"all": true, "wait": true}))
        .await;
    assert_eq!(said["fleet"]["behind"], serde_json::json!([]));
    assert_eq!(fleet.look(1, "after").await, 504);
}

#[tokio::test]
async fn a_cluster_may_move_its_slots() {
    const SLOTS: [[&str; 2]; 3] = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];
    let Some(program) = program() else {
        return;
    };
    let mut nodes = Vec::new();
    for [first, last] in SLOTS {
        let node = Server::start(&program, &["--cluster-enabled", "yes"], None).await;
        node.say::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        nodes.push(node);
    }
    for node in &nodes[1..] {
        let (port, bus) = (node.port.to_string(), node.bus.to_string());
        nodes[0].say::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }
    for node in &nodes {
        node.until(&["CLUSTER", "INFO"], |info: &String| {
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    let url = format!(
        "redis+cluster://{},{}",
        nodes[0].address(),
        nodes[1].address()
    );
    let fleet = Fleet::at(None, url, 2, "").await;
    for number in 0..12 {
        fleet.share(0, &format!("spread {number}")).await;
    }
    fleet
        .under_load(async {
            move_slots(&nodes, 0, 1).await;
            fleet.until_well().await;
        })
        .await;
    for number in 0..12 {
        let answer = fleet.ask(1, &format!("spread {number}")).await;
        assert_eq!(answer.reflex(), HIT, "{number}");
    }
    let said = fleet
        .purge(0, &serde_json::json!({"all": true, "wait": true}))
        .await;
    assert_eq!(said["fleet"]["behind"], serde_json::json!([]));
    assert_eq!(fleet.look(1, "spread 0").await, 504);
    fleet
        .under_load(async {
            nodes[2].kill();
            fleet.edges[0]
                .until("lookups that find a node missing", |metrics| {
                    super::looked(metrics, "late") + super::looked(metrics, "failed") > 0.5
                })
                .await;
        })
        .await;
}

/// Moves the slots with values of one node to another one, and the values with them.
async fn move_slots(nodes: &[Server], from: usize, to: usize) {
    let id = |node: &Server| node.say::<String>(&["CLUSTER", "MYID"]);
    let (source, target) = (id(&nodes[from]), id(&nodes[to]));
    let port = nodes[to].port.to_string();
    for name in nodes[from].say::<Vec<String>>(&["KEYS", "*"]) {
        let slot = nodes[from]
            .say::<u64>(&["CLUSTER", "KEYSLOT", &name])
            .to_string();
        nodes[to].say::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        nodes[from].say::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
        // It says so if the value has gone meanwhile.
        nodes[from].say::<String>(&["MIGRATE", "127.0.0.1", &port, &name, "0", "5000"]);
        tokio::task::yield_now().await;
        for node in [to, from, 2] {
            nodes[node].say::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
        }
    }
}
