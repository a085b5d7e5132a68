package postgres_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

var sql = postgres.Dialect{}.SQL()

func fetches() []dialect.Fetch {
	var all []dialect.Fetch
	for _, buckets := range [][]int{nil, {}, {1, 2, 3}} {
		for _, topics := range [][]string{nil, {"a"}, {"b", `q"\,{}`}} {
			for _, not := range []bool{false, true} {
				for _, parked := range []bool{false, true} {
					for _, except := range [][]int64{nil, {7}, {7, 9, 8}, {7, 100}} {
						all = append(all, dialect.Fetch{
							Epoch: 1, Buckets: buckets, Topics: topics, Not: not, After: 5, Except: except, Limit: 10, Parked: parked,
						})
					}
				}
			}
		}
	}
	return all
}

func TestEveryParameterHasAnArgument(t *testing.T) {
	var all []dialect.Statement
	for _, f := range fetches() {
		all = append(all, sql.Fetch(f), sql.Waiting(f))
		for archive := -1; archive < 3; archive++ {
			a := dialect.Ack{Epoch: 1, IDs: []int64{7}, Archive: archive}
			all = append(all, sql.AckFetch(a, f))
			all = append(all, sql.Ack(a)...)
		}
	}
	row := dialect.Row{Topic: "t", Payload: []byte{}}
	all = append(all, sql.Insert([]dialect.Row{row}), sql.Insert([]dialect.Row{row, row}))
	parameter := regexp.MustCompile(`\$([0-9]+)`)
	for _, st := range all {
		used := map[int]bool{}
		for _, m := range parameter.FindAllStringSubmatch(st.Text, -1) {
			n, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			used[n] = true
		}
		require.Len(t, used, len(st.Args), st.Text)
		for n := range st.Args {
			require.True(t, used[n+1], "$%d in %s", n+1, st.Text)
		}
	}
}

// Drivers and the server keep what they know about a statement by its text.
func TestTextsDoNotDependOnTheLengthOfLists(t *testing.T) {
	texts := map[string]bool{}
	for _, n := range []int64{1, 2, 50, 500} {
		var ids []int64
		var buckets []int
		var topics []string
		var rows []dialect.Row
		for id := range n {
			ids, buckets, topics = append(ids, id+1), append(buckets, int(id)), append(topics, strconv.FormatInt(id, 10))
			rows = append(rows, dialect.Row{Topic: "t", Payload: []byte("p")}, dialect.Row{Topic: "t", Payload: []byte("p")})
		}
		f := dialect.Fetch{Epoch: n, Buckets: buckets, Topics: topics, Except: ids, Limit: 100}
		a := dialect.Ack{Epoch: n, IDs: ids, Archive: -1}
		for _, st := range []dialect.Statement{sql.Fetch(f), sql.Waiting(f), sql.AckFetch(a, f), sql.Ack(a)[0], sql.Insert(rows)} {
			texts[st.Text] = true
		}
	}
	require.Len(t, texts, 5)
	for limit := range 1000 {
		texts[sql.Fetch(dialect.Fetch{Not: true, Limit: limit + 1}).Text] = true
	}
	require.Len(t, texts, 5+11, "one for each power of two")
}

// Fetch says in one of two ways which ids it may read: those after After that
// are not in a list, or what is around a span and in its gaps.
func TestFetchMayReadWhatIsNotExcepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		after := rapid.Int64Range(0, 40).Draw(t, "after")
		except := rapid.SliceOfN(rapid.Int64Range(0, 60), 0, 40).Draw(t, "except")
		given := fmt.Sprint(except)
		st := sql.Fetch(dialect.Fetch{Epoch: 1, Not: true, After: after, Except: except, Limit: 10})
		require.Equal(t, given, fmt.Sprint(except), "the list is the caller's")

		mayRead := map[int64]bool{}
		switch len(st.Args) {
		case 4:
			listed := ids(t, st.Args[3])
			for id := after + 1; id <= 100; id++ {
				mayRead[id] = !listed[id]
			}
		case 6:
			low, high := st.Args[3].(int64), st.Args[4].(int64)
			for id := after + 1; id < low; id++ {
				mayRead[id] = true
			}
			for id := range ids(t, st.Args[5]) {
				require.Greater(t, id, after)
				require.False(t, mayRead[id], "%d is read twice", id)
				mayRead[id] = true
			}
			require.GreaterOrEqual(t, high, after)
			for id := high + 1; id <= 100; id++ {
				require.False(t, mayRead[id], "%d is read twice", id)
				mayRead[id] = true
			}
		default:
			t.Fatalf("%d arguments", len(st.Args))
		}
		excepted := map[int64]bool{}
		for _, id := range except {
			excepted[id] = true
		}
		for id := int64(-1); id <= 100; id++ {
			require.Equal(t, id > after && !excepted[id], mayRead[id], "id %d", id)
		}
	})
}

// ids reads an array of numbers.
func ids(t *rapid.T, arg any) map[int64]bool {
	text := arg.(string)
	require.Regexp(t, `^\{[0-9,]*\}$`, text)
	out := map[int64]bool{}
	if text == "{}" {
		return out
	}
	for s := range strings.SplitSeq(text[1:len(text)-1], ",") {
		id, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
		out[id] = true
	}
	return out
}
