use std::time::Duration;

use super::*;
use crate::config;
use crate::snapshot::Configured;
use crate::source::inputs::GRACE;

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: gw1}\n\
    status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";

fn pod(name: &str, eip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  annotations: {{ovn.kubernetes.io/eip: {eip:?}}}\n\
         status: {{podIP: 10.244.1.10}}\n"
    )
}

fn config_map(nic_ip: &str) -> String {
    let data: String = config::tests::example_data()
        .into_iter()
        .map(|(key, value)| format!("  {key}: {:?}\n", if key == "nic-ip" { nic_ip } else { &value }))
        .collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {}, namespace: {}}}\ndata:\n{data}",
        config::NAME,
        config::NAMESPACE
    )
}

const NIC_IP: &str = "192.168.100.254/24";

/// A directory and the source that reads it.
struct Fixture {
    dir: tempfile::TempDir,
    source: DirSource,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = DirSource::new(dir.path(), Keys::default(), ConfigMapName::default());
        let fixture = Self { dir, source };
        for (name, text) in files {
            fixture.write(name, text);
        }
        fixture
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    fn scan(&mut self) -> Inputs {
        self.source.scan().unwrap()
    }

    /// Names of the pods with their EIPs, and the problems' objects.
    fn pods(&mut self) -> (Vec<String>, Vec<String>) {
        let inputs = self.scan();
        let pods =
            inputs.pods.iter().map(|(name, pod)| format!("{} {}", name.name, pod.eip.as_deref().unwrap()));
        (pods.collect(), inputs.problems.into_iter().map(|problem| problem.object).collect())
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn manifests_are_read_and_everything_else_is_left_out() {
    let mut fixture = Fixture::new(&[
        ("config.yml", &config_map(NIC_IP)),
        ("all.yaml", &format!("{}---\n{NODE}", pod("a", "1"))),
        ("b.json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#),
        (".hidden.yaml", "nonsense"),
        ("notes.txt", "nonsense"),
        ("web.yaml~", "nonsense"),
    ]);
    fs::create_dir(fixture.dir.path().join("sub.yaml")).unwrap();
    let inputs = fixture.scan();
    assert_eq!(inputs.problems, []);
    assert_eq!(inputs.configured, Configured::Enabled(config::tests::example()));
    assert_eq!(inputs.pods.keys().map(|name| &name.name[..]).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(inputs.nodes["gw1"].internal_ip, Some([10, 0, 0, 1].into()));
}

#[test]
fn deleting_a_file_or_a_document_deletes_the_objects() {
    let both = format!("{}---\n{}", pod("a", "1"), pod("b", "2"));
    let mut fixture = Fixture::new(&[("x.yaml", &both), ("y.yaml", &pod("c", "3"))]);
    assert_eq!(fixture.pods(), (strings(&["a 1", "b 2", "c 3"]), vec![]));
    fixture.write("x.yaml", &pod("b", "4"));
    assert_eq!(fixture.pods(), (strings(&["b 4", "c 3"]), vec![]));
    fixture.remove("y.yaml");
    assert_eq!(fixture.pods(), (strings(&["b 4"]), vec![]));
}

#[test]
fn a_file_that_goes_bad_stays_in_force_as_it_was() {
    let mut fixture = Fixture::new(&[("x.yaml", &pod("a", "1")), ("y.yaml", &pod("b", "2"))]);
    fixture.pods();
    fixture.write("y.yaml", &pod("b", "3"));
    for bad in ["kind: [", "just text", "kind: Pod", "apiVersion: v2\nkind: Pod\nmetadata: {name: a}"] {
        fixture.write("x.yaml", bad);
        let expected = (strings(&["a 1", "b 3"]), strings(&["file x.yaml, document 1"]));
        assert_eq!(fixture.pods(), expected, "{bad}");
    }
    fs::write(fixture.dir.path().join("x.yaml"), [0xff, 0xfe]).unwrap();
    assert_eq!(fixture.pods(), (strings(&["a 1", "b 3"]), strings(&["file x.yaml"])));
    fixture.write("x.yaml", &pod("a", "5"));
    assert_eq!(fixture.pods(), (strings(&["a 5", "b 3"]), vec![]));
    fixture.write("x.yaml", "kind: [");
    fixture.pods();
    fixture.remove("x.yaml");
    assert_eq!(fixture.pods(), (strings(&["b 3"]), vec![]));
}

#[test]
fn a_bad_object_does_not_hold_its_neighbours_back() {
    let good = |a: &str, b: &str| format!("{}---\n{}", pod("a", a), pod("b", b));
    let mut fixture = Fixture::new(&[("x.yaml", &good("1", "2"))]);
    fixture.pods();
    fixture.write("x.yaml", &good("3", "4").replacen("10.244.1.10", "x", 1));
    let complaint = strings(&["file x.yaml, document 1, pod default/a"]);
    assert_eq!(fixture.pods(), (strings(&["a 1", "b 4"]), complaint));
    // A bad document with a name does not keep a deleted one alive.
    fixture.write("x.yaml", &pod("a", "5").replace("10.244.1.10", "x"));
    assert_eq!(fixture.pods().0, strings(&["a 1"]));
}

#[test]
fn of_two_definitions_the_first_files_counts() {
    let mut fixture = Fixture::new(&[("x.yaml", &pod("a", "1")), ("w.yaml", &pod("a", "2"))]);
    let (pods, problems) = fixture.pods();
    assert_eq!((pods, problems), (strings(&["a 2"]), strings(&["file x.yaml, document 1, pod default/a"])));
    fixture.remove("w.yaml");
    assert_eq!(fixture.pods(), (strings(&["a 1"]), vec![]));
    fixture.write("x.yaml", &format!("{}---\n{}", pod("a", "3"), pod("a", "4")));
    assert_eq!(fixture.pods(), (strings(&["a 3"]), strings(&["file x.yaml, document 2, pod default/a"])));
}

#[test]
fn the_configuration_is_unknown_then_good_then_off() {
    let good = Configured::Enabled(config::tests::example());
    let mut fixture = Fixture::new(&[("node.yaml", NODE)]);
    assert_eq!(fixture.scan().configured, Configured::Unknown);
    fixture.write("config.yaml", &config_map("x"));
    let inputs = fixture.scan();
    assert_eq!(inputs.configured, Configured::Unknown, "nothing good has been seen yet");
    assert_eq!(inputs.problems[0].field, "data[nic-ip]");
    fixture.write("config.yaml", &config_map(NIC_IP));
    assert_eq!(fixture.scan().configured, good);
    for bad in [config_map("x"), config_map(NIC_IP).replace("\"true\"", "true"), "kind: [".to_owned()] {
        fixture.write("config.yaml", &bad);
        let inputs = fixture.scan();
        assert_eq!((inputs.configured, inputs.problems.len()), (good.clone(), 1), "{bad}");
        fixture.write("config.yaml", &config_map(NIC_IP));
        assert_eq!(fixture.scan().problems, []);
    }
    // Away for a while: that need not be its end.
    fixture.remove("config.yaml");
    let inputs = fixture.scan();
    assert_eq!(inputs.configured, good);
    assert_eq!(inputs.problems[0].object, "configmap kube-system/ovn-external-gw-config");
    fixture.write("config.yaml", &config_map(NIC_IP));
    assert_eq!((fixture.scan().problems, fixture.source.due()), (vec![], None));
    fixture.remove("config.yaml");
    assert_eq!(fixture.scan().configured, good);
    assert!(fixture.source.due().is_some());
    fixture.source.last_good.pass(GRACE);
    let inputs = fixture.scan();
    assert_eq!((inputs.configured, inputs.problems.len()), (Configured::Disabled, 0));
    assert_eq!(fixture.source.due(), None);
    fixture.write("config.yaml", &config_map(NIC_IP));
    assert_eq!(fixture.scan().configured, good);
    fixture.write("config.yaml", &config_map(NIC_IP).replace("\"true\"", "\"false\""));
    assert_eq!(fixture.scan().configured, Configured::Disabled);
}

#[test]
fn a_directory_that_vanishes_takes_nothing_along() {
    let mut fixture = Fixture::new(&[("x.yaml", &pod("a", "1")), ("config.yaml", &config_map(NIC_IP))]);
    let before = fixture.scan();
    let away = fixture.dir.path().with_extension("away");
    fs::rename(fixture.dir.path(), &away).unwrap();
    let mut gone = fixture.scan();
    let problem = gone.problems.pop().unwrap();
    assert!(problem.object.starts_with("directory "), "{problem}");
    assert_eq!(gone, before);
    fs::rename(&away, fixture.dir.path()).unwrap();
    assert_eq!(fixture.scan(), before);
}

#[test]
fn a_directory_that_never_was_is_an_error() {
    let mut source = DirSource::new("/nonexistent/manifests", Keys::default(), ConfigMapName::default());
    assert_eq!(source.scan().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(watch(source.path()).is_err());
}

#[tokio::test]
async fn changes_are_noticed_and_reading_is_not() {
    let fixture = Fixture::new(&[("x.yaml", NODE)]);
    let (_guard, mut changes) = watch(fixture.dir.path()).unwrap();
    let mut quiet_after = async |what: &str| {
        tokio::time::timeout(Duration::from_secs(5), changes.recv()).await.expect(what).expect("open");
        while tokio::time::timeout(Duration::from_millis(100), changes.recv()).await.is_ok() {}
    };
    fixture.write("y.yaml", NODE);
    quiet_after("a new file").await;
    fs::rename(fixture.dir.path().join("y.yaml"), fixture.dir.path().join("x.yaml")).unwrap();
    quiet_after("a rename").await;
    fixture.remove("x.yaml");
    quiet_after("a removal").await;
    fixture.write("x.yaml", NODE);
    quiet_after("again").await;
    fs::read_to_string(fixture.dir.path().join("x.yaml")).unwrap();
    let read = tokio::time::timeout(Duration::from_millis(200), changes.recv()).await;
    assert!(read.is_err(), "reading is no change");
}
