package main

import (
	"fmt"
	"strconv"
	"sync"
)

const (
	keysPerLane = 1250 // 20,000 with 16 lanes

	keyDigits, turnDigits = 8, 12 // of the numbers that a body begins with
	bodyBytesMin          = keyDigits + 1 + turnDigits + 1
)

// course gives the effects of a lane one after the other. No two lanes share a key; within a lane keys
// come as if by chance, and always the same.
type course struct {
	lane  int
	next  uint64
	turns [keysPerLane]int64
}

// step gives the key of the next effect, and which of its key's effects it is, from 0.
func (c *course) step() (key int, turn int64) {
	i := scatter(c.next) % keysPerLane
	c.next++
	turn = c.turns[i]
	c.turns[i]++
	return c.lane*keysPerLane + int(i), turn
}

// body gives the body of the next effect with its key.
func (c *course) body(size int) (key int, body []byte) {
	key, turn := c.step()
	return key, bodyOf(key, turn, size)
}

// scatter mixes the bits of a number (the finalizer of SplitMix64).
func scatter(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func laneOf(key int) int { return key / keysPerLane }

// bodyOf is the payload of an effect: plain text, so that a peer which wraps it in JSON need not
// escape anything. It is made by hand, since what it takes is taken from the peers.
func bodyOf(key int, turn int64, size int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	body := appendDigits(make([]byte, 0, size), int64(key), keyDigits)
	body = appendDigits(append(body, ' '), turn, turnDigits)
	body = append(body, ' ')
	for len(body) < size {
		body = append(body, letters[:min(len(letters), size-len(body))]...)
	}
	return body
}

// appendDigits writes a number with zeros before it.
func appendDigits(text []byte, n int64, width int) []byte {
	for range width {
		text = append(text, '0')
	}
	for i := len(text) - 1; n > 0; i-- {
		text[i] = byte('0' + n%10)
		n /= 10
	}
	return text
}

func parseBody(body []byte) (key int, turn int64, err error) {
	if len(body) < bodyBytesMin {
		return 0, 0, fmt.Errorf("a body of %d bytes, want at least %d", len(body), bodyBytesMin)
	}
	if key, err = strconv.Atoi(string(body[:keyDigits])); err != nil {
		return 0, 0, fmt.Errorf("key of a body: %w", err)
	}
	if turn, err = strconv.ParseInt(string(body[keyDigits+1:keyDigits+1+turnDigits]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("turn of a body: %w", err)
	}
	return key, turn, nil
}

// deliveries is what a target has seen: by key, in the order of the calls.
type deliveries struct{ keys []delivered }

type delivered struct {
	mu         sync.Mutex
	calls      int64
	last       int64 // highest turn
	sum        int64 // of the turns
	disordered int64
}

func newDeliveries(lanes int) *deliveries {
	return &deliveries{keys: make([]delivered, lanes*keysPerLane)}
}

// add notes a call. An error means that the body is none of ours.
func (d *deliveries) add(body []byte) (lane int, err error) {
	key, turn, err := parseBody(body)
	if err != nil {
		return 0, err
	}
	if key < 0 || key >= len(d.keys) {
		return 0, fmt.Errorf("key %d of a body, want one below %d", key, len(d.keys))
	}
	k := &d.keys[key]
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.calls > 0 && turn < k.last {
		k.disordered++
	}
	k.calls++
	k.last = max(k.last, turn)
	k.sum += turn
	return laneOf(key), nil
}

// deliveryTally is what became of the effects of a run, as their target saw it.
type deliveryTally struct {
	Calls      int64 `json:"calls"`
	Missing    int64 `json:"missing"`
	Repeated   int64 `json:"repeated"`
	Disordered int64 `json:"disordered"` // calls after a later one of their key
}

// tally compares with what was asked for: so many effects of each lane.
func (d *deliveries) tally(asked []int64) deliveryTally {
	var sum deliveryTally
	for lane, n := range asked {
		again := course{lane: lane}
		for range n {
			again.step()
		}
		for i, want := range again.turns {
			d.keys[lane*keysPerLane+i].addTo(&sum, want)
		}
	}
	return sum
}

func (k *delivered) addTo(sum *deliveryTally, want int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sum.Calls += k.calls
	sum.Disordered += k.disordered
	sum.Missing += max(0, want-k.calls)
	sum.Repeated += max(0, k.calls-want)
	if k.calls == want && k.sum != want*(want-1)/2 { // one instead of another
		sum.Missing++
		sum.Repeated++
	}
}
