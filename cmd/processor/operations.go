package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const answerBytesMax = 64 << 10

// operations speaks to the operations HTTP of a running process.
type operations struct {
	base *url.URL
}

// operationsAt takes what --url gave.
func operationsAt(text string) (operations, error) {
	base, err := url.Parse(text)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return operations{}, usage(fmt.Errorf("--url is %q, want one such as http://127.0.0.1:9090", text))
	}
	return operations{base: base}, nil
}

// operationsOf finds a process on this machine by what its admin.listen says.
func operationsOf(listen string) (operations, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return operations{}, usage(fmt.Errorf("admin.listen is %q, want host:port: %w", listen, err))
	}
	if port == "0" {
		return operations{}, usage(fmt.Errorf("admin.listen is %q, which lets the process choose its port: give --url, the first line of the process's log names the address", listen))
	}
	switch host { // "all addresses" is nothing that one could dial
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return operations{base: &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}}, nil
}

// ask makes one request and returns the status and the text of the answer. token and body may be
// empty.
func (o operations) ask(ctx context.Context, method, path, token string, body []byte) (code int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, o.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("make request: %w", err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{
		// Neither a proxy nor a kept connection: one question to a process nearby.
		Transport: &http.Transport{DisableKeepAlives: true},
		// The token goes to the address that was named and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		if inner, is := errors.AsType[*url.Error](err); is {
			err = inner.Err
		}
		return 0, "", fmt.Errorf("ask %s: %w", o.base.Redacted(), err)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return 0, "", fmt.Errorf("read answer of %s: %w", o.base.Redacted(), err)
	}
	return response.StatusCode, explain(response.Header.Get("Content-Type"), answer), nil
}

// explain takes the sentence for a person out of a problem (RFC 9457), else the text as it is.
func explain(kind string, answer []byte) string {
	if strings.HasPrefix(kind, "application/problem+json") {
		var problem struct{ Detail string }
		if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
			return problem.Detail
		}
	}
	return strings.TrimSpace(string(answer))
}
