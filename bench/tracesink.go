package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	sinkBodyMax = 64 << 20         // of one request; a batch of 512 spans with all their links is below 10 MB
	sinkTimeout = 10 * time.Second // for a request's headers
)

// traceSink is a collector on loopback that takes every span. While a run lasts it only keeps what it was sent: what it
// takes of the machine is taken from the one who is measured.
type traceSink struct {
	url     string
	server  *http.Server
	running sync.WaitGroup

	mu      sync.Mutex
	bodies  [][]byte
	problem error // the first
}

// sinkTally is what a sink was sent.
type sinkTally struct {
	Requests int `json:"requests"`
	Spans    int `json:"spans"`
	Links    int `json:"links"`
}

func openTraceSink(ctx context.Context) (*traceSink, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the sink of spans: %w", err)
	}
	s := &traceSink{url: "http://" + listener.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", s.take)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: sinkTimeout}
	s.running.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.note(err)
		}
	})
	return s, nil
}

func (s *traceSink) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sinkBodyMax))
	if err != nil {
		s.note(fmt.Errorf("read a request: %w", err))
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, body)
}

func (s *traceSink) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem == nil {
		s.problem = err
	}
}

// taken counts what came since it was asked last.
func (s *traceSink) taken() (sinkTally, error) {
	s.mu.Lock()
	bodies, err := s.bodies, s.problem
	s.bodies = nil
	s.mu.Unlock()
	sum := sinkTally{Requests: len(bodies)}
	for _, body := range bodies {
		var data tracepb.TracesData // has the bytes of a request of the collector, without its gRPC
		err = errors.Join(err, proto.Unmarshal(body, &data))
		for _, resource := range data.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				sum.Spans += len(scope.GetSpans())
				for _, span := range scope.GetSpans() {
					sum.Links += len(span.GetLinks())
				}
			}
		}
	}
	if err != nil {
		return sum, fmt.Errorf("sink of spans: %w", err)
	}
	return sum, nil
}

// close ends the sink at once: whoever sent spans has ended.
func (s *traceSink) close() error {
	err := s.server.Close()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = errors.Join(s.problem, err); err != nil {
		return fmt.Errorf("sink of spans: %w", err)
	}
	return nil
}
