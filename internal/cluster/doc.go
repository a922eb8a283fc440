// Package cluster runs real servers beside the calling program: Apache Kafka as Java processes in
// KRaft mode, and a private Postgres. `processor dev` shows Pawl on them, tests break them.
//
// Every process is a child of the caller and dies with it, even when the caller is killed (on
// Linux; elsewhere after Close only). Everything listens on loopback. Data lives in a folder that
// Close removes; what a killed caller left behind is removed by the next Open.
//
// The package runs on Unix.
package cluster
