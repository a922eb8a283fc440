package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/admin"
	"pawl/internal/deadletter"
)

// DeadLetters says where the dead letters are, and how to reach them.
func (c Config) DeadLetters(client []kgo.Opt) deadletter.Config {
	return deadletter.Config{
		Client: client, Application: c.Application, ReplayGeneration: c.ReplayGeneration,
		Topic: c.DeadLetterTopic(), ControlTopic: c.ControlTopic(),
	}
}

const (
	lettersOfReason = 5
	reasonsMax      = 50
	notOurs         = "not written by a processor" // in the place of a reason, which is a word from a closed set otherwise
)

// lettersAPI shows the dead letters of the application, whichever process wrote them. They are read when somebody asks, with
// connections of their own: nothing is held open for it, and the work does not wait for it.
type lettersAPI struct {
	config deadletter.Config
	censor func(string) string // of what brokers say
}

// LettersTail is the newest part of the dead-letter topic, by reason.
type LettersTail struct {
	Topic   string          `json:"topic"`
	Letters int             `json:"letters"` // that were read
	More    bool            `json:"more"`    // older ones are there, which were not
	Reasons []ReasonLetters `json:"reasons"` // most letters first
}

// ReasonLetters are those of one reason among the letters that were read.
type ReasonLetters struct {
	Reason  string         `json:"reason"`
	Letters int            `json:"letters"`
	Newest  []ListedLetter `json:"newest"` // the last written first, a few of them
}

func (a lettersAPI) open() (*deadletter.Queue, error) {
	queue, err := deadletter.Open(a.config)
	if err != nil {
		return nil, a.problem(err)
	}
	return queue, nil
}

func (a lettersAPI) problem(err error) error {
	return &admin.Problem{Status: http.StatusServiceUnavailable, Detail: "dead letters can't be read: " + a.censor(err.Error())}
}

// List implements admin.DeadLetters.
func (a lettersAPI) List(ctx context.Context) (any, error) {
	queue, err := a.open()
	if err != nil {
		return nil, err
	}
	defer queue.Close()
	var groups letterGroups
	more, err := queue.Newest(ctx, groups.add)
	if err != nil {
		return nil, a.problem(err)
	}
	tail := groups.tail()
	tail.Topic, tail.More = a.config.Topic, tail.More || more
	return tail, nil
}

// Show implements admin.DeadLetters.
func (a lettersAPI) Show(ctx context.Context, letter string, contents bool) (any, error) {
	at, err := deadletter.ParsePosition(letter)
	if err != nil {
		return nil, badRequest(err)
	}
	queue, err := a.open()
	if err != nil {
		return nil, err
	}
	defer queue.Close()
	found, is, err := queue.Find(ctx, at)
	if err != nil {
		return nil, a.problem(err)
	}
	if !is {
		return nil, &admin.Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no dead letter at %s: `processor dlq ls --all` lists them", at)}
	}
	return LookAtLetter(&found, contents), nil
}

// letterGroups keeps the last of each reason, and none of their bytes.
type letterGroups struct {
	reasons map[string]*letterGroup
	letters int
	more    bool // there are more reasons than are kept
}

type letterGroup struct {
	letters int
	newest  []newLetter
}

type newLetter struct {
	ListedLetter

	behind int64
}

func (g *letterGroups) add(l deadletter.Letter, behind int64) {
	g.letters++
	reason := l.Reason
	if l.Unreadable != nil {
		reason = notOurs
	}
	group := g.reasons[reason]
	if group == nil {
		if len(g.reasons) == reasonsMax {
			g.more = true
			return
		}
		if g.reasons == nil {
			g.reasons = make(map[string]*letterGroup)
		}
		group = &letterGroup{}
		g.reasons[reason] = group
	}
	group.letters++
	group.newest = append(group.newest, newLetter{ListLetter(&l), behind})
	slices.SortStableFunc(group.newest, func(a, b newLetter) int { return cmp.Compare(a.behind, b.behind) })
	group.newest = group.newest[:min(len(group.newest), lettersOfReason)]
}

func (g *letterGroups) tail() LettersTail {
	tail := LettersTail{Letters: g.letters, More: g.more, Reasons: []ReasonLetters{}}
	for _, reason := range slices.Sorted(maps.Keys(g.reasons)) {
		one := ReasonLetters{Reason: reason, Letters: g.reasons[reason].letters}
		for _, l := range g.reasons[reason].newest {
			one.Newest = append(one.Newest, l.ListedLetter)
		}
		tail.Reasons = append(tail.Reasons, one)
	}
	slices.SortStableFunc(tail.Reasons, func(a, b ReasonLetters) int { return cmp.Compare(b.Letters, a.Letters) })
	return tail
}
