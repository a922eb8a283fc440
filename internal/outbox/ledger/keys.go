package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"pawl/internal/outbox"
)

// businessKey is what an intent's key is looked up by.
type businessKey struct{ endpoint, key string }

// businessKeyMax keeps keys within what an index of Postgres can hold.
const businessKeyMax = 500

func keyOf(intent *outbox.Intent) businessKey {
	key := storable(intent.BusinessKey)
	if len(key) > businessKeyMax {
		sum := sha256.Sum256([]byte(key))
		key = "sha256:" + hex.EncodeToString(sum[:])
	}
	return businessKey{storable(intent.Endpoint), key}
}

func bodyHash(intent *outbox.Intent) [32]byte {
	h := sha256.New()
	h.Write([]byte(intent.ContentType))
	h.Write([]byte{0})
	h.Write(intent.Body)
	return [32]byte(h.Sum(nil))
}

type firstUse struct {
	lane   int32
	offset int64
	hash   [32]byte
}

// takeKeys makes each intent of a batch the first with its business key, or finds who was, and sets
// its twin then.
func (l *Ledger) takeKeys(ctx context.Context, tx pgx.Tx, batch *outbox.Batch) error {
	wanted := map[businessKey]firstUse{}
	for i := range batch.Intents {
		intent := &batch.Intents[i]
		if intent.BusinessKey == "" {
			continue
		}
		if key := keyOf(intent); wanted[key] == (firstUse{}) {
			wanted[key] = firstUse{intent.Lane, intent.Offset, bodyHash(intent)}
		}
	}
	first, err := l.claimKeys(ctx, tx, wanted)
	if err != nil {
		return err
	}
	for i := range batch.Intents {
		intent := &batch.Intents[i]
		if intent.BusinessKey == "" {
			continue
		}
		if use := first[keyOf(intent)]; use.lane != intent.Lane || use.offset != intent.Offset {
			intent.Twin = &outbox.Twin{Lane: use.lane, Offset: use.offset, Same: use.hash == bodyHash(intent)}
		}
	}
	return nil
}

const claimSQL = `
INSERT INTO @schema.business_key (endpoint, key, lane, off, body_hash)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bytea[])
ON CONFLICT (endpoint, key) DO NOTHING RETURNING off`

const claimedSQL = `
SELECT b.endpoint, b.key, b.lane, b.off, b.body_hash
FROM unnest($1::text[], $2::text[]) AS u (endpoint, key) JOIN @schema.business_key b ON b.endpoint = u.endpoint AND b.key = u.key`

// claimsMax bounds how often a key may be trimmed between the look at it and the look for it.
const claimsMax = 3

// claimKeys takes the keys that are free and tells who has each. Another transaction that is taking
// one is waited for; everybody takes them in the same order, so nobody waits in a circle.
func (l *Ledger) claimKeys(ctx context.Context, tx pgx.Tx, wanted map[businessKey]firstUse) (map[businessKey]firstUse, error) {
	left := slices.SortedFunc(maps.Keys(wanted), func(a, b businessKey) int {
		return cmp.Or(cmp.Compare(a.endpoint, b.endpoint), cmp.Compare(a.key, b.key))
	})
	first := make(map[businessKey]firstUse, len(left))
	for range claimsMax {
		taken, err := l.takeFree(ctx, tx, left, wanted)
		if err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(left, func(key businessKey) bool {
			use := wanted[key]
			if taken[use.offset] {
				first[key] = use
			}
			return taken[use.offset]
		})
		if len(left) == 0 {
			return first, nil
		}
		// A statement of its own sees what the one before it had to wait for.
		if err := l.readTaken(ctx, tx, left, first); err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(left, func(key businessKey) bool {
			_, found := first[key]
			return found
		})
		if len(left) == 0 {
			return first, nil
		}
	}
	return nil, errors.New("keys vanish while they are taken")
}

// takeFree takes the keys that nobody has, and gives the offsets that they were taken for.
func (l *Ledger) takeFree(ctx context.Context, tx pgx.Tx, keys []businessKey, wanted map[businessKey]firstUse) (map[int64]bool, error) {
	lanes, offsets, hashes := make([]int32, len(keys)), make([]int64, len(keys)), make([][]byte, len(keys))
	for i, key := range keys {
		use := wanted[key]
		lanes[i], offsets[i], hashes[i] = use.lane, use.offset, use.hash[:]
	}
	endpoints, names := split(keys)
	rows, err := tx.Query(ctx, l.sql(claimSQL, 0), endpoints, names, lanes, offsets, hashes)
	if err != nil {
		return nil, err
	}
	taken := make(map[int64]bool, len(keys))
	var offset int64
	_, err = pgx.ForEachRow(rows, []any{&offset}, func() error {
		taken[offset] = true
		return nil
	})
	return taken, err
}

// readTaken adds who has the keys.
func (l *Ledger) readTaken(ctx context.Context, tx pgx.Tx, keys []businessKey, first map[businessKey]firstUse) error {
	endpoints, names := split(keys)
	rows, err := tx.Query(ctx, l.sql(claimedSQL, 0), endpoints, names)
	if err != nil {
		return err
	}
	var key businessKey
	var use firstUse
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&key.endpoint, &key.key, &use.lane, &use.offset, &hash}, func() error {
		if len(hash) != len(use.hash) {
			return fmt.Errorf("a body hash has %d bytes, want %d", len(hash), len(use.hash))
		}
		use.hash = [sha256.Size]byte(hash)
		first[key] = use
		return nil
	})
	return err
}

func split(keys []businessKey) (endpoints, names []string) {
	endpoints, names = make([]string, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		endpoints[i], names[i] = key.endpoint, key.key
	}
	return endpoints, names
}
