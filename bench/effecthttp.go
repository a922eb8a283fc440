package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	effectBodyMax     = 1 << 20
	effectCallTimeout = 30 * time.Second
)

// poster makes plain calls with the transport that the reference of net/http recommends for one host:
// as many idle connections as there are calls at once. It does less than this project's target: no
// guarded dialer, no signature, no fence.
type poster struct {
	url    string
	client *http.Client
}

func newPoster(url string) *poster {
	return &poster{url: url, client: &http.Client{
		Timeout: effectCallTimeout,
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: effectCallTimeout}).DialContext,
			MaxConnsPerHost: effectConcurrency, MaxIdleConns: effectConcurrency, MaxIdleConnsPerHost: effectConcurrency,
		},
	}}
}

// post makes one call; its key is what stands first in the body.
func (p *poster) post(ctx context.Context, body string) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader(body)) //nolint:gosec // bench named its own endpoint
	if err != nil {
		return fmt.Errorf("make call: %w", err)
	}
	request.Header.Set("Content-Type", "text/plain")
	request.Header.Set("Idempotency-Key", body[:bodyBytesMin-1])
	response, err := p.client.Do(request) //nolint:gosec // as above
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, effectBodyMax)); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s, want 200", response.Status)
	}
	return nil
}

func (p *poster) close() { p.client.CloseIdleConnections() }

// httpEngine is the loop that posts and does nothing else: what HTTP alone costs on this machine.
// Every inserter has a lane of its own and makes one call after another.
type httpEngine struct {
	spec   effectSpec
	poster *poster
	done   func(lane int, n int64)

	answered atomic.Int64
}

func (h *httpEngine) shape() shape {
	return shape{lanes: effectConcurrency, inserters: effectConcurrency, batch: 1}
}

func (h *httpEngine) open(_ context.Context, done func(lane int, n int64)) error {
	h.done = done
	return nil
}

func (h *httpEngine) insert(ctx context.Context, lane *course, n int) error {
	for range n {
		_, body := lane.body(h.spec.Bytes)
		if err := h.poster.post(ctx, string(body)); err != nil {
			return err
		}
		h.answered.Add(1)
		h.done(lane.lane, 1)
	}
	return nil
}

func (h *httpEngine) settle(context.Context, *gauge) error { return nil }

// proof has nothing stored to count, only the answers.
func (h *httpEngine) proof(context.Context) (int64, error) { return h.answered.Load(), nil }

func (h *httpEngine) close(context.Context) error {
	h.poster.close()
	return nil
}
