// Package helm holds no code: its tests render the chart of Pawl with Helm's own engine, hold the result against what
// Kubernetes, KEDA and the Prometheus operator take, and write what follows from the chart (`make chart`): the plain
// manifests in deploy/kubernetes, the golden files that a review reads, the copies of the Prometheus rules, the schema of
// the configuration within that of the values, and the table of values in docs/kubernetes.md. It is a module of its own so that
// Helm and Kubernetes stay out of the product's go.mod. Its tests are in the integration layer, since unit tests run
// under the race detector, for which all of that would be compiled once more.
package helm
