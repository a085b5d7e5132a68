package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// recordingTx is a transaction that notes its statements.
type recordingTx struct {
	queries []string
	args    [][]any
	err     error
}

func (tx *recordingTx) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	tx.queries = append(tx.queries, query)
	tx.args = append(tx.args, append([]any(nil), args...))
	return nil, tx.err
}

func (*recordingTx) Commit() error   { panic("Add must not commit") }
func (*recordingTx) Rollback() error { panic("Add must not roll back") }

func newOutbox(t require.TestingT, o outbox.Options) *outbox.Outbox {
	box, err := outbox.New(sqlite.Dialect{}, o)
	require.NoError(t, err)
	return box
}

func TestAddWritesEachMessageOnceInFewStatements(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 2000).Draw(t, "messages")
		msgs := make([]outbox.Message, n)
		for i := range msgs {
			msgs[i] = outbox.Message{Topic: "t", Payload: []byte{byte(i), byte(i >> 8)}}
		}
		var tx recordingTx
		require.NoError(t, box.Add(context.Background(), &tx, msgs...))
		require.Len(t, tx.queries, (n+499)/500)
		i := 0
		for j, args := range tx.args {
			require.LessOrEqual(t, len(args), 32766)
			require.Equal(t, len(args), strings.Count(tx.queries[j], "?"))
			for _, arg := range args {
				if payload, ok := arg.([]byte); ok {
					require.Equal(t, msgs[i].Payload, payload)
					i++
				}
			}
		}
		require.Equal(t, n, i)
	})
}

func TestAddWritesWhatTheTablesWant(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	var tx recordingTx
	at := time.Date(2030, 1, 2, 3, 4, 5, 6789, time.FixedZone("", 3600))
	require.NoError(t, box.Add(t.Context(), &tx,
		outbox.Message{Topic: "t"},
		outbox.Message{Topic: "t", Key: "k", Type: "y", Payload: []byte("p"), Header: map[string]string{"b": "2", "a": "1"}, DeliverAt: at},
	))
	require.Equal(t, []any{
		"t", "", "",
		[]byte{},
		"",
		"t", "k", "y", []byte("p"), `{"a":"1","b":"2"}`,
	}, tx.args[0])
	require.Contains(t, tx.queries[0], fmt.Sprint(at.UnixMicro()))
}

func TestAddRefusesWhatADatabaseCannotStore(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	long := strings.Repeat("x", 256)
	for want, m := range map[string]outbox.Message{
		"Topic is empty":                        {},
		"Topic has 256 bytes, want at most 255": {Topic: long},
		"Key has 256 bytes":                     {Topic: "t", Key: long},
		"Type has 256 bytes":                    {Topic: "t", Type: long},
		`Topic "a\xff" is not UTF-8`:            {Topic: "a\xff"},
		`Key "a\x00b" is not UTF-8 without NUL`: {Topic: "t", Key: "a\x00b"},
		`Type "\xc0" is not UTF-8`:              {Topic: "t", Type: "\xc0"},
		`Header name "" is not a token`:         {Topic: "t", Header: map[string]string{"": "v"}},
		`Header name "a b" is not a token`:      {Topic: "t", Header: map[string]string{"a b": "v"}},
		`Header name "ü" is not a token`:        {Topic: "t", Header: map[string]string{"ü": "v"}},
		`Header a value "\xff" is not UTF-8`:    {Topic: "t", Header: map[string]string{"a": "\xff"}},
		"DeliverAt 10000-01-01":                 {Topic: "t", DeliverAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"DeliverAt 1969-12-31":                  {Topic: "t", DeliverAt: time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)},
	} {
		var tx recordingTx
		err := box.Add(t.Context(), &tx, outbox.Message{Topic: "fine"}, m)
		require.ErrorIs(t, err, outbox.ErrInvalid, want)
		require.ErrorContains(t, err, "message 2 of 2: "+want)
		require.Empty(t, tx.queries, "nothing is written")
	}
	var tx recordingTx
	require.NoError(t, box.Add(t.Context(), &tx, outbox.Message{
		Topic: long[:255], Key: "schlüssel\n", Header: map[string]string{"X-_!#$%&'*+.^`|~9": "wert ü"}, DeliverAt: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}))
}

func TestAddReturnsTheDatabasesError(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	broken := errors.New("broken")
	tx := recordingTx{err: broken}
	err := box.Add(t.Context(), &tx, make600()...)
	require.ErrorIs(t, err, broken)
	require.Len(t, tx.queries, 1, "it ends at the first")
}

func make600() []outbox.Message {
	msgs := make([]outbox.Message, 600)
	for i := range msgs {
		msgs[i].Topic = "t"
	}
	return msgs
}
