//! Metrics and health as their readers see them: a real Prometheus scrapes agents in the lab.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::Lab;
use gateway_tests::scene::{EIP1, eventually, reaches, scene};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(15);

#[test]
fn prometheus_scrapes_what_the_packets_did() -> Result<()> {
    let lab = scene("mp-", 1500)?;
    reaches(&lab, "client", EIP1, 3)?;
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("prometheus.yml");
    let targets = "scrape_configs:\n- job_name: eip-gateway\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
                   static_configs: [{targets: ['127.0.0.1:9817']}]\n";
    std::fs::write(&config, targets)?;
    let arguments = [
        "prometheus".to_owned(),
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        "--web.listen-address=127.0.0.1:9990".to_owned(),
    ];
    let prometheus = lab.spawn("gw1", &arguments)?;
    let query = |expression: &str| -> Result<Option<f64>> {
        let expression = format!("query={expression}");
        let url = "http://127.0.0.1:9990/api/v1/query";
        let text = lab.exec("gw1", &["curl", "-s", "--data-urlencode", &expression, url])?.stdout;
        // Nothing while it starts.
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(answer["data"]["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()))
    };
    eventually(LIMIT, "Prometheus has scraped", || Ok(query("up")? == Some(1.0)))
        .map_err(|error| error.context(prometheus.stderr()))?;
    for (expression, expected) in [
        ("eip_gateway_owner", 1.0),
        (r#"eip_gateway_eips{state="bound"}"#, 1.0),
        (r#"eip_gateway_eip_packets_total{eip="192.168.100.101",direction="in"}"#, 3.0),
        (r#"eip_gateway_eip_packets_total{eip="192.168.100.101",direction="out"}"#, 3.0),
        (r#"eip_gateway_packets_total{reason="to_worker"}"#, 3.0),
        (r#"eip_gateway_map_entries{map="eips"}"#, 1.0),
        (r#"eip_gateway_build_info{abi="5"}"#, 1.0),
        (r#"sum({__name__=~"eip_gateway_packets_total",reason=~"drop_.*"})"#, 0.0),
    ] {
        ensure!(query(expression)? == Some(expected), "{expression} is {:?}", query(expression)?);
    }
    Ok(())
}

/// What curl prints within so many seconds, and the status; `000` without an answer.
fn get_within(lab: &Lab, from: &str, url: &str, seconds: &str) -> Result<String> {
    let output = lab.exec(from, &["curl", "-s", "-m", seconds, "-w", "%{http_code}", url])?;
    Ok(String::from_utf8(output.stdout)?)
}

/// A host on the external network tries every address of the gateway: those of the router port and
/// of the external NIC, and those inside, to which the gateway's kernel leads it.
fn nothing_outside(lab: &Lab) -> Result<()> {
    lab.read("gw1", &["ip", "address", "add", "192.168.100.2/24", "dev", "enp8s0"])?;
    lab.read("gw1", &["ip", "address", "add", "198.51.100.2/24", "dev", "enp8s0"])?;
    lab.read("client", &["ip", "address", "add", "198.51.100.1/24", "dev", "eth0"])?;
    lab.read("client", &["ip", "route", "add", "172.18.0.0/24", "via", "192.168.100.2"])?;
    let listed = lab.read("gw1", &["ip", "-4", "-o", "address"])?;
    let addresses: Vec<_> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()).collect();
    let tried = ["172.18.0.11", "192.168.100.2", "198.51.100.2", "192.168.100.254"];
    ensure!(tried.iter().all(|address| addresses.contains(address)), "{listed}");
    let is_refused = |source: &str, address: &str| -> Result<bool> {
        let url = format!("http://{address}:9817/metrics");
        let output = lab.exec("client", &["curl", "-s", "-m1", "--interface", source, &url])?;
        Ok(!output.status.success() && output.stdout.is_empty())
    };
    // No configuration names this subnet: the agent hears of it from the kernel.
    eventually(Duration::from_secs(2), "the agent knows the NIC's new address", || {
        is_refused("198.51.100.1", tried[0])
    })?;
    for address in tried {
        for source in ["192.168.100.1", "198.51.100.1"] {
            ensure!(is_refused(source, address)?, "{source} is served at {address}");
        }
    }
    lab.read("gw1", &["ip", "address", "flush", "dev", "enp8s0"]).map(drop)
}

/// The kubelet kills an agent that does not answer its probe: no pod of the cluster may bring that
/// about.
#[test]
fn idle_connections_fail_neither_probes_nor_scrapes() -> Result<()> {
    let lab = scene("mi-", 1500)?;
    let address = "172.18.0.11";
    let flood = |from: &str, address: &str| {
        let script = format!(
            "import socket, time\nheld = [socket.socket() for _ in range(400)]\nfor one in held:\n one.setblocking(0)\n \
             one.connect_ex(('{address}', 9817))\nprint('held', flush=True)\ntime.sleep(60)"
        );
        let mut job = lab.spawn(from, &["python3", "-c", &script])?;
        job.wait_for("held", Duration::from_secs(10))?;
        anyhow::Ok(job)
    };
    let _idle = flood("pod2a", address)?;
    for _ in 0..3 {
        let healthy = get_within(&lab, "gw1", "127.0.0.1:9817/healthz", "1")?;
        ensure!(healthy == "ok\n200", "the probe: {healthy}");
        for (from, url) in [("worker1", address), ("gw1", "127.0.0.1")] {
            let scraped = get_within(&lab, from, &format!("{url}:9817/metrics"), "1")?;
            ensure!(scraped.ends_with("# EOF\n200"), "{from} scrapes: {scraped}");
        }
    }
    // By a process of the node itself.
    let _local = flood("gw1", "127.0.0.1")?;
    let healthy = get_within(&lab, "gw1", "127.0.0.1:9817/healthz", "1")?;
    ensure!(healthy == "ok\n200", "the probe: {healthy}");
    Ok(())
}

#[test]
fn health_is_told_to_the_cluster_and_nothing_to_the_outside() -> Result<()> {
    let lab = scene("mh-", 1500)?;
    let get = |from: &str, url: &str| get_within(&lab, from, url, "3");
    for node in ["gw1", "worker1"] {
        for path in ["healthz", "readyz"] {
            ensure!(get(node, &format!("localhost:9817/{path}"))? == "ok\n200", "{node} {path}");
        }
    }
    for (from, to) in [("worker1", "172.18.0.11"), ("pod0a", "172.18.0.11"), ("pod2a", "172.18.0.21")] {
        ensure!(get(from, &format!("{to}:9817/metrics"))?.ends_with("# EOF\n200"), "{from} scrapes {to}");
    }
    nothing_outside(&lab)?;

    let map = lab.manifests().join("configmap.yaml");
    let good = std::fs::read_to_string(&map)?;
    let nic = good.lines().find(|line| line.contains("external-gw-nic:")).context("no external-gw-nic")?;
    std::fs::write(&map, good.replace(nic, "  external-gw-nic: nonic0"))?;
    eventually(LIMIT, "gw1 is not ready", || {
        let answer = get("gw1", "localhost:9817/readyz")?;
        Ok(answer.contains("nonic0") && answer.ends_with("503"))
    })?;
    ensure!(get("gw1", "localhost:9817/healthz")? == "ok\n200");
    std::fs::write(&map, good)?;
    eventually(LIMIT, "gw1 is ready again", || Ok(get("gw1", "localhost:9817/readyz")? == "ok\n200"))
}
