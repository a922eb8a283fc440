package dev

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"
)

// What the generated configuration says, where this package has to know it too.
const (
	application = "orders"
	inputTopic  = "orders"
	partitions  = 8 // of the input and of each output
	lanes       = 2 // of each processor
)

// settingsText is the configuration that the processors run with. It is written to a file that a
// person may use with every other command, so it explains itself.
const settingsText = `# Written by "processor dev" for its processors. While it runs, try for instance:
#   processor lag -c {{.File}}
application: {{.Application}}
kafka:
  brokers: [{{.Brokers}}]
  heartbeat: 500ms     # lanes change hands within that time
input:
  start: earliest
routes:
  - topics: [{{.Input}}]
    handler: orders
  - topics: [{{.Application}}.effect-results]
    handler: order-results
outputs:
  priced: {topic: {{.Application}}.priced, partitions: {{.Partitions}}}
  ledger: {topic: {{.Application}}.ledger, partitions: {{.Partitions}}}
txn:
  lanes: {{.Lanes}}
  handler_timeout: 5s
  drain_timeout: 10s   # nobody should wait for the end of a demonstration
effects:
  lanes: {{.Partitions}}
endpoints:
  payments: {url: {{.Endpoint}}, allow_private: true, timeout: {{.Timeout}}}
{{- if .DSNFile}}
postgres:
  dsn_file: {{.DSNFile}}
{{- end}}
admin:
  listen: "127.0.0.1:0"   # each processor is told its own on the command line
log:
  format: text
`

// endpointNowhere is what the configuration names where no endpoint runs and nobody calls it.
const endpointNowhere = "http://127.0.0.1:8089" + chargesPath

// writeSettings writes the configuration for a cluster with the given addresses. Without an outside
// there is no ledger.
func writeSettings(path string, brokers []string, o *outside) error {
	endpoint, dsnFile := endpointNowhere, ""
	if o != nil {
		endpoint, dsnFile = o.endpoint.URL(), strconv.Quote(o.dsnFile)
	}
	quoted := make([]string, len(brokers))
	for i, broker := range brokers {
		quoted[i] = strconv.Quote(broker)
	}
	form, err := template.New("settings").Parse(settingsText)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	var text bytes.Buffer
	if err := form.Execute(&text, map[string]any{
		"File": path, "Application": application, "Brokers": strings.Join(quoted, ", "),
		"Input": inputTopic, "Partitions": partitions, "Lanes": lanes,
		"Endpoint": strconv.Quote(endpoint), "Timeout": callTimeout, "DSNFile": dsnFile,
	}); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
