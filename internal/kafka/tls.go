package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// tlsDialer opens verified TLS connections. It reads the certificate files for every connection, so
// that a renewed certificate or authority is used without a restart. A renewal caught half way (the
// key does not fit the certificate yet) leaves the last good files in use: what was valid a moment
// ago is the better guess.
type tlsDialer struct {
	conf TLS
	net  net.Dialer

	mu          sync.Mutex
	authorities *x509.CertPool // nil trusts the system's
	certificate *tls.Certificate
}

// newTLSDialer reads all files once and reports every problem with them.
func newTLSDialer(conf TLS) (*tlsDialer, error) {
	d := &tlsDialer{conf: conf, net: net.Dialer{Timeout: dialTimeout}}
	var errs []error
	var err error
	if d.authorities, err = loadAuthorities(conf.CAFile); err != nil {
		errs = append(errs, err)
	}
	if d.certificate, err = loadCertificate(conf.CertFile, conf.KeyFile); err != nil {
		errs = append(errs, err)
	}
	return d, errors.Join(errs...)
}

// dial has the shape that kgo.Dialer wants.
func (d *tlsDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conf, err := d.config(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := tls.Dialer{NetDialer: &d.net, Config: conf}
	return dialer.DialContext(ctx, network, address)
}

func (d *tlsDialer) config(address string) (*tls.Config, error) {
	name := d.conf.ServerName
	if name == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("dial broker: %w", err)
		}
		name = host
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if authorities, err := loadAuthorities(d.conf.CAFile); err == nil {
		d.authorities = authorities
	}
	if certificate, err := loadCertificate(d.conf.CertFile, d.conf.KeyFile); err == nil {
		d.certificate = certificate
	}
	conf := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, RootCAs: d.authorities}
	if certificate := d.certificate; certificate != nil {
		// Not Certificates: that field is filtered by what the server says it accepts, and a
		// certificate held back looks to both sides like one that was never configured.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate, nil
		}
	}
	return conf, nil
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // a nil pool is how crypto/tls spells "the system's authorities"
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("kafka.tls.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("kafka.tls.ca_file: %s holds no usable PEM certificate: want blocks that begin with -----BEGIN CERTIFICATE-----", file)
	}
	return pool, nil
}

func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil //nolint:nilnil // no client certificate is asked for
	case certFile == "":
		return nil, errors.New("kafka.tls.key_file is set without kafka.tls.cert_file: mutual TLS needs both")
	case keyFile == "":
		return nil, errors.New("kafka.tls.cert_file is set without kafka.tls.key_file: mutual TLS needs both")
	}
	chain, certErr := os.ReadFile(certFile) //nolint:gosec // the operator names the file
	if certErr != nil {
		certErr = fmt.Errorf("kafka.tls.cert_file: %w", certErr)
	}
	key, keyErr := os.ReadFile(keyFile) //nolint:gosec // the operator names the file
	if keyErr != nil {
		keyErr = fmt.Errorf("kafka.tls.key_file: %w", keyErr)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		hint := ""
		if bytes.Contains(key, []byte("ENCRYPTED")) {
			hint = " (the key is encrypted: store it in the clear in a file only this service can read)"
		}
		return nil, fmt.Errorf("kafka.tls.cert_file %s and kafka.tls.key_file %s: %w%s", certFile, keyFile, err, hint)
	}
	return &certificate, nil
}
