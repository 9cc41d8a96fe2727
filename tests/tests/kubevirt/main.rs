//! KubeVirt: VirtualMachineInstances and launcher pods on a real API server, agents and real packets in the lab. Needs
//! root, `cargo xtask build` and `cargo xtask setup kube` before.

mod migration;
