//! Metrics and health as their readers see them: a real Prometheus scrapes agents in the lab.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
        (r#"eip_gateway_build_info{abi="4"}"#, 1.0),
        (r#"sum({__name__=~"eip_gateway_packets_total",reason=~"drop_.*"})"#, 0.0),
    ] {
        ensure!(query(expression)? == Some(expected), "{expression} is {:?}", query(expression)?);
    }
    Ok(())
}

#[test]
fn health_is_told_to_the_cluster_and_nothing_to_the_outside() -> Result<()> {
    let lab = scene("mh-", 1500)?;
    let get = |from: &str, url: &str| -> Result<String> {
        let output = lab.exec(from, &["curl", "-s", "-m3", "-w", "%{http_code}", url])?;
        Ok(String::from_utf8(output.stdout)?)
    };
    for node in ["gw1", "worker1"] {
        for path in ["healthz", "readyz"] {
            ensure!(get(node, &format!("localhost:9817/{path}"))? == "ok\n200", "{node} {path}");
        }
    }
    let outside = get("client", "192.168.100.254:9817/metrics")?;
    ensure!(outside == "000", "served on nic-ip: {outside}");

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
