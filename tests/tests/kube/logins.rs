//! Logins that are wrong, expire, or are mended while the agent runs: the data path stays, and one line says why.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_apiserver::User;
use gateway_lab::Job;
use gateway_tests::scene::{EIP1, EIP2, NODES, Pinging, eventually, holds, reaches};
use serde_json::{Value, json};

use gateway_tests::cluster::Scene;

/// Time for an agent to try again and succeed: its longest pause after an answer is 15 s.
const RECOVERY: Duration = Duration::from_secs(20);

/// An account that may do everything, and something its tokens end with.
const ACCOUNT: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: kube-system}
---
apiVersion: v1
kind: Secret
metadata: {name: session, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: agent, namespace: kube-system}]
"#;

/// The kubeconfig that a test may spoil, and the file of its token.
struct Login {
    kubeconfig: PathBuf,
    token: PathBuf,
}

impl Login {
    fn new(scene: &Scene) -> Result<Self> {
        scene.cluster.apply(ACCOUNT)?;
        let user = User::ServiceAccount { namespace: "kube-system", name: "agent" };
        let of_cluster = scene.cluster.kubeconfig(user)?;
        let login = Self {
            kubeconfig: of_cluster.with_extension("login"),
            token: of_cluster.with_extension("token"),
        };
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&of_cluster)?)?;
        config["users"][0]["user"] = json!({ "tokenFile": login.token });
        fs::write(&login.kubeconfig, config.to_string())?;
        Ok(login)
    }

    /// Puts a fresh token into the file; one that is bound to the Secret ends with it.
    fn renew(&self, scene: &Scene, bound: &[&str]) -> Result<()> {
        let words = ["create", "token", "agent", "-n", "kube-system"];
        let token = scene.cluster.kubectl(&[&words, bound].concat())?;
        fs::write(&self.token, token.trim()).context("writing the token")
    }
}

/// Lines of a log with a text.
fn count(job: &Job, text: &str) -> usize {
    job.stderr().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_token_ends_and_is_renewed() -> Result<()> {
    let mut scene = Scene::new("b12-")?;
    let login = Login::new(&scene)?;
    // The API server gives no token for less than ten minutes. One that is bound to a Secret ends with it, and is
    // answered by the same 401.
    login.renew(&scene, &["--bound-object-kind=Secret", "--bound-object-name=session"])?;
    for node in NODES {
        scene.spawn_agent_by(node, &login.kubeconfig, "info")?;
        scene.agent(node)?.wait_for("in sync", RECOVERY)?;
    }
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;

    scene.cluster.delete(&["secret", "session", "-n", "kube-system"])?;
    // The watches that are open stay open; new ones are refused.
    scene.cluster.kill_api_server()?;
    scene.cluster.start_api_server()?;
    for node in NODES {
        scene.agent(node)?.wait_for("API server: credentials: it answers 401", RECOVERY)?;
    }
    scene.annotate("pod2a", Some(EIP2))?;
    fs::write(&login.token, "not.a.token")?;
    std::thread::sleep(Duration::from_millis(500));
    reaches(&scene.lab, "client", EIP1, 3)?;

    login.renew(&scene, &[])?;
    eventually(RECOVERY, "the new token is used", || Ok(holds(&scene.lab, "gw1", &[EIP1, EIP2]).is_ok()))?;
    scene.routed("pod2a", true)?;
    scene.works(EIP2)?;
    for node in NODES {
        let agent = scene.agent(node)?;
        agent.wait_for("no longer: it answers 401", RECOVERY)?;
        let told = count(agent, "API server: credentials");
        ensure!(told == 1, "{node} tells it {told} times: {}", agent.stderr());
    }
    pinging.none_lost()?;
    scene.agents_live()
}

#[test]
fn a_bad_kubeconfig_is_told_in_one_line_and_tried_again() -> Result<()> {
    let mut scene = Scene::new("b13-")?;
    let login = Login::new(&scene)?;
    login.renew(&scene, &[])?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    let good = fs::read_to_string(&login.kubeconfig)?;
    let path = login.kubeconfig.display().to_string();
    for (text, words) in [
        ("clusters: {".to_owned(), [&*path, "YAML", "--kubeconfig"]),
        (
            good.replace(r#""current-context":"lab""#, r#""current-context":"other""#),
            [&*path, "other", "context"],
        ),
        (good.replace("ca.crt", "absent.crt"), [&*path, "absent.crt", "No such file"]),
        (good.replace("ca.crt", "server.crt"), ["cannot be reached", "certificate", "tries again"]),
        (good.replace(":6443", ":6444"), ["cannot be reached", "refused", "tries again"]),
        (good.replace("tokenFile", "token"), ["it answers 401", "Unauthorized", "renew the token"]),
    ] {
        ensure!(text != good, "the kubeconfig is not spoilt for {words:?}");
        fs::write(&login.kubeconfig, text)?;
        scene.spawn_agent_by("gw1", &login.kubeconfig, "info")?;
        tells(&mut scene, "gw1", &words)?;
    }

    // No such file, for a while, on each node.
    fs::remove_file(&login.kubeconfig)?;
    for node in NODES {
        scene.spawn_agent_by(node, &login.kubeconfig, "debug")?;
        tells(&mut scene, node, &[&path, "No such file", "--kubeconfig"])?;
    }
    let begin = Instant::now();
    eventually(Duration::from_secs(5), "it is tried again and again", || {
        Ok(count(scene.agent("gw1")?, "watch what=\"nodes\"") >= 5)
    })?;
    // 0.2 s, 0.4 s, 0.8 s, 1.6 s, of which up to half is left out by chance.
    ensure!(begin.elapsed() > Duration::from_secs(1), "5 tries within {:?}", begin.elapsed());
    for node in NODES {
        tells(&mut scene, node, &["No such file"])?;
    }
    reaches(&scene.lab, "client", EIP1, 3)?;

    // Mended: all goes on by itself, and nothing has to be written.
    fs::write(&login.kubeconfig, good)?;
    for node in NODES {
        let agent = scene.agent(node)?;
        agent.wait_for("in sync", RECOVERY)?;
        ensure!(count(agent, "rows, 0 differences") == 1, "{node}: {}", agent.stderr());
    }
    scene.annotate("pod2a", Some(EIP2))?;
    scene.works(EIP2)?;
    pinging.none_lost()?;
    scene.agents_live()
}

/// A node's agent tells of the API server in one line, with all of `words`.
fn tells(scene: &mut Scene, node: &str, words: &[&str]) -> Result<()> {
    let agent = scene.agent(node)?;
    agent.wait_for("WARN API server: ", Duration::from_secs(5))?;
    let log = agent.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN API server: ")).collect();
    ensure!(lines.len() == 1 && words.iter().all(|word| lines[0].contains(word)), "{words:?}: {log}");
    let stray: Vec<_> = log.lines().filter(|line| !line.starts_with("20")).collect();
    ensure!(stray.is_empty(), "lines that are no lines of a log: {stray:?}");
    Ok(())
}
