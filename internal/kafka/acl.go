package kafka

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// acls writes the commands that give this service a right it lacks.
type acls struct{ conf Config }

func (a acls) topic(name string, operations ...kmsg.ACLOperation) string {
	return a.add(operations, "--topic "+quote(name))
}

func (a acls) group(name string, operations ...kmsg.ACLOperation) string {
	return a.add(operations, "--group "+quote(name))
}

// transactionalIDs covers all ids of the application: each instance and lane has its own.
func (a acls) transactionalIDs(application string, operations ...kmsg.ACLOperation) string {
	return a.add(operations, "--transactional-id "+quote(application+".")+" --resource-pattern-type prefixed")
}

func (a acls) add(operations []kmsg.ACLOperation, resource string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "run `kafka-acls.sh --bootstrap-server %s --add --allow-principal %s", strings.Join(a.conf.Brokers, ","), quote("User:"+a.conf.principal()))
	for _, operation := range operations {
		b.WriteString(" --operation " + operationName(operation))
	}
	b.WriteString(" " + resource + "`")
	return b.String()
}

// principal guesses the name that the brokers know us by. Their principal mapping may make it
// another; then the command is still the right one but for the name.
func (c Config) principal() string {
	switch {
	case c.SASL.Username != "":
		return c.SASL.Username
	case c.SASL.Mechanism != "":
		return "PRINCIPAL"
	case c.TLS.CertFile == "":
		return "ANONYMOUS"
	}
	certificate, err := loadCertificate(c.TLS.CertFile, c.TLS.KeyFile)
	if err != nil || certificate == nil || len(certificate.Certificate) == 0 {
		return "PRINCIPAL"
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return "PRINCIPAL"
	}
	return leaf.Subject.String()
}

func operationName(operation kmsg.ACLOperation) string {
	switch operation { // only what the service needs has a name here
	case kmsg.ACLOperationRead:
		return "Read"
	case kmsg.ACLOperationWrite:
		return "Write"
	case kmsg.ACLOperationDescribe:
		return "Describe"
	case kmsg.ACLOperationDescribeConfigs:
		return "DescribeConfigs"
	default:
		return operation.String()
	}
}

// quote makes text one word of a shell.
func quote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
