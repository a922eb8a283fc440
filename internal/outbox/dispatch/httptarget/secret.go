package httptarget

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

// The form of a secret and of a signature: Standard Webhooks, symmetric scheme.
const (
	secretPrefix    = "whsec_"
	signaturePrefix = "v1,"

	secretBytesMin = 24
	secretBytesMax = 64
	secretFileMax  = 4 << 10 // anything larger is the wrong file

	secretsMax = 2
)

// secrets signs with what its files hold.
type secrets struct{ *files }

// openSecrets reads every file once and reports every problem with them.
func openSecrets(paths []string, changed func(string, error)) (*secrets, error) {
	if len(paths) > secretsMax {
		return nil, fmt.Errorf("%d secret files are given, want at most %d", len(paths), secretsMax)
	}
	opened, err := openFiles(paths, readSecret, changed)
	return &secrets{opened}, err
}

// sign gives the value of webhook-signature: one signature for each secret.
func (s *secrets) sign(now time.Time, id, seconds string, body []byte) string {
	var space [secretsMax][]byte
	keys := s.appendTo(space[:0], now)
	text := make([]byte, 0, secretsMax*(len(signaturePrefix)+base64.StdEncoding.EncodedLen(sha256.Size)+1))
	head := make([]byte, 0, len(id)+len(seconds)+2)
	head = append(head, id...)
	head = append(head, '.')
	head = append(head, seconds...)
	head = append(head, '.')
	var sum [sha256.Size]byte
	for i, key := range keys {
		if i > 0 {
			text = append(text, ' ')
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(head)
		mac.Write(body)
		text = append(text, signaturePrefix...)
		text = base64.StdEncoding.AppendEncode(text, mac.Sum(sum[:0]))
	}
	return string(text)
}

// readSecret never quotes what it read.
func readSecret(path string) ([]byte, error) {
	text, err := readFile(path, secretFileMax)
	if err != nil {
		return nil, err
	}
	encoded, found := strings.CutPrefix(strings.TrimSpace(string(text)), secretPrefix)
	if !found || len(text) > secretFileMax {
		return nil, fmt.Errorf("read secret: %s holds %d bytes, want %s and base64", path, len(text), secretPrefix)
	}
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil {
		return nil, fmt.Errorf("read secret: %s holds no base64 after %s", path, secretPrefix)
	}
	if len(key) < secretBytesMin || len(key) > secretBytesMax {
		return nil, fmt.Errorf("read secret: the key in %s has %d bytes, want %d to %d", path, len(key), secretBytesMin, secretBytesMax)
	}
	return key, nil
}
