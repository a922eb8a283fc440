package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pawl/internal/cluster"
)

// peerNames are all who copy.
var peerNames = []string{processorName, loopName, sessionName, streamsName, streamsBestName}

// programs are what the peers run.
type programs struct {
	folder  string // for what they need and write
	binary  string // the processor
	self    string // this program
	streams *cluster.Streams
}

// findPrograms finds or makes the programs of those peers that settings name.
func findPrograms(ctx context.Context, s settings, folder string, progress func(string)) (programs, error) {
	p := programs{folder: folder}
	names := strings.Split(s.peers, ",")
	for _, name := range names {
		if !slices.Contains(peerNames, name) {
			return p, fmt.Errorf("-peers names %q, want some of %s", name, strings.Join(peerNames, ", "))
		}
	}
	var err error
	if p.self, err = os.Executable(); err != nil {
		return p, fmt.Errorf("find this program: %w", err)
	}
	if p.binary, err = filepath.Abs(s.processor); err != nil {
		return p, fmt.Errorf("find the processor: %w", err)
	}
	if slices.Contains(names, processorName) {
		if _, err := os.Stat(p.binary); err != nil {
			return p, fmt.Errorf("find the processor: %w (run `make build`, or name it by -processor)", err)
		}
	}
	if slices.Contains(names, streamsName) || slices.Contains(names, streamsBestName) {
		p.streams, err = cluster.OpenStreams(ctx, cluster.StreamsConfig{Source: streamsCopy, Class: streamsClass, Folder: folder, Progress: progress})
	}
	return p, err
}

// newPeers makes those who are measured.
func newPeers(s settings, programs programs) []peer {
	var peers []peer
	for name := range strings.SplitSeq(s.peers, ",") {
		switch name {
		case processorName:
			peers = append(peers, newProcessorPeer(s, programs))
		case loopName:
			peers = append(peers, &loopPeer{self: programs.self, processes: s.processes})
		case sessionName:
			peers = append(peers, &sessionPeer{self: programs.self})
		case streamsName, streamsBestName:
			peers = append(peers, &streamsPeer{program: programs.streams, folder: programs.folder, best: name == streamsBestName, threads: s.processes * s.lanes})
		}
	}
	return peers
}
