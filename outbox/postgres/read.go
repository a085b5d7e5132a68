package postgres

import (
	"math/bits"
	"slices"
	"strconv"
	"sync"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// A form says which texts of Fetch, Ack, AckFetch and Waiting to take. There are
// few, since drivers and the server keep what they know about a statement by its
// text, and none depends on the length of a list.
type form struct {
	archive int // number, or -1
	span    bool
	buckets bool
	topics  topicFilter
	parked  bool
	room    int // a power of two, at least the limit
}

type topicFilter int

const (
	allTopics topicFilter = iota
	onlyTopics
	notTopics
)

// formTexts are the texts of one form.
type formTexts struct{ fetch, ack, ackFetch, waiting string }

var formsInUse sync.Map // of form: *formTexts, which never change

func (f form) texts() *formTexts {
	if t, ok := formsInUse.Load(f); ok {
		return t.(*formTexts)
	}
	t, _ := formsInUse.LoadOrStore(f, &formTexts{f.fetch(new(params)), f.ack(new(params)), f.ackFetch(), f.waiting()})
	return t.(*formTexts)
}

func fetch(f dialect.Fetch) dialect.Statement {
	form, args := formOf(&f, make([]any, 0, 8))
	return dialect.Statement{Text: form.texts().fetch, Args: args}
}

func ack(a dialect.Ack) []dialect.Statement {
	form := form{archive: a.Archive}
	return []dialect.Statement{{Text: form.texts().ack, Args: ackArgs(make([]any, 0, 4), &a)}}
}

func ackFetch(a dialect.Ack, f dialect.Fetch) dialect.Statement {
	form, args := formOf(&f, ackArgs(make([]any, 0, 12), &a))
	form.archive = a.Archive
	return dialect.Statement{Text: form.texts().ackFetch, Args: args}
}

func waiting(f dialect.Fetch) dialect.Statement {
	form := form{archive: -1, buckets: f.Buckets != nil, topics: filterOf(&f), room: roomFor(f.Limit)}
	args := append(make([]any, 0, 4), f.Epoch, numbers(f.Except), f.Limit)
	if form.buckets {
		args = append(args, numbers(f.Buckets))
	}
	if form.topics != allTopics {
		args = append(args, texts(f.Topics))
	}
	return dialect.Statement{Text: form.texts().waiting, Args: args}
}

// ackArgs appends the arguments of form.ack. The bounds say nothing new; they
// show the planner that few rows are meant, whatever it believes about the list.
func ackArgs(args []any, a *dialect.Ack) []any {
	var low, high int64 = 1, 0
	if len(a.IDs) > 0 {
		low, high = slices.Min(a.IDs), slices.Max(a.IDs)
	}
	return append(args, a.Epoch, low, high, numbers(a.IDs))
}

func filterOf(f *dialect.Fetch) topicFilter {
	switch {
	case !f.Not:
		return onlyTopics
	case len(f.Topics) == 0:
		return allTopics
	default:
		return notTopics
	}
}

// formOf returns the form of f and appends the arguments of form.fetch.
func formOf(f *dialect.Fetch, args []any) (form, []any) {
	form := form{archive: -1, buckets: f.Buckets != nil, parked: f.Parked, topics: filterOf(f), room: roomFor(f.Limit)}
	args = append(args, f.Epoch, f.After, f.Limit)
	s, ok := spanOf(f)
	if form.span = ok; ok {
		args = append(args, s.low, s.high, numbers(s.gaps))
	} else {
		args = append(args, numbers(f.Except))
	}
	if form.buckets {
		args = append(args, numbers(f.Buckets))
	}
	if form.topics != allTopics {
		args = append(args, texts(f.Topics))
	}
	return form, args
}

// A span is a list of ids not to be read, seen from the other side: nothing of
// low to high but the gaps may be read.
type span struct {
	low, high int64
	gaps      []int64
}

// spanOf returns the span of f.Except, unless it has more gaps than ids, which
// is so where others have their share of the messages. What a drainer has in
// work is otherwise nearly without gaps. To read around it saves the server
// from looking at each message again while it waits to be deleted: a third of
// its time at 100 messages a batch.
func spanOf(f *dialect.Fetch) (span, bool) {
	s := span{low: f.After + 1, high: f.After}
	except := f.Except
	if !slices.IsSorted(except) {
		except = slices.Sorted(slices.Values(except))
	}
	above, _ := slices.BinarySearch(except, f.After+1)
	except = except[above:]
	if len(except) == 0 {
		return s, true
	}
	s.low, s.high = except[0], except[len(except)-1]
	if s.high-s.low >= 2*int64(len(except)) {
		return s, false
	}
	next := s.low
	for _, id := range except {
		for ; next < id; next++ {
			s.gaps = append(s.gaps, next)
		}
		next = id + 1
	}
	return s, true
}

// params numbers the parameters of a text in the order of the arguments.
type params int

func (p *params) next() string {
	*p++
	return `$` + strconv.Itoa(int(*p))
}

// held is a condition that is evaluated once, before anything is read.
func held(epoch string) string {
	return `EXISTS (SELECT FROM outbox_leases WHERE epoch = ` + epoch + `)`
}

// list unfolds a list parameter: an array as text, so that any driver can send
// it. Written as a subselect it is evaluated once, and not for each row.
func list(param, typ string) string {
	return `((SELECT ` + param + `::text::` + typ + `[])::` + typ + `[])`
}

// except leaves out ids. IN a subselect makes a hash table of them.
func except(param string) string {
	return ` AND id NOT IN (SELECT unnest(` + param + `::text::bigint[]))`
}

// What a session has planned for a statement while a queue was empty, it keeps
// when a burst of a million messages has come. Two things make all plans alike:
//
// inOrder follows a table that is to be read in the order of an index and no
// further than to the limit. It is one row, of which the planner believes that
// there are a thousand, so that reading all and sorting it looks expensive.
//
// within bounds by a constant what is bounded by a parameter in the end. Of a
// parameter the planner does not know that it is small, would make a new plan
// for each execution, and would believe that compiling it pays (jit).
const inOrder = ` CROSS JOIN generate_series(1, (SELECT 1)) AS one`

func (f form) within() string { return ` LIMIT ` + strconv.Itoa(f.room) }

// roomFor returns the constant for a limit: one of few.
func roomFor(limit int) int { return 1 << bits.Len(uint(max(limit, 1)-1)) }

const (
	// head are the columns with which every list of messages begins.
	head = `id, topic, message_key, type, payload, header, created_at, deliver_at, bucket`
	// carried are the columns that a message takes along from table to table.
	carried = `id, created_at, deliver_at, bucket, topic, message_key, type, payload, header`
	// parkedState is 1 if the key of m is parked, and 0 otherwise. As a scalar
	// it cannot become a hash table of all parked keys.
	parkedState = `CASE WHEN message_key = '' THEN 0
	ELSE coalesce((SELECT 1 FROM outbox_parked p WHERE p.topic = m.topic AND p.message_key = m.message_key), 0) END`
)

// fetch reads with the primary key, from the watermark on. State 1 is blocked
// (its key is parked), 2 is early (its time has not come), 0 is neither.
func (f form) fetch(p *params) string {
	epoch, after, limit := p.next(), p.next(), p.next()
	state := `0`
	if f.parked {
		state = parkedState
	}
	columns := `SELECT ` + head + `, CASE WHEN deliver_at = 0 OR deliver_at <= (SELECT ` + now + `) THEN ` + state + ` ELSE 2 END
FROM `
	part := func(where, filter string) string {
		return `(SELECT m.* FROM outbox_messages m` + inOrder + ` WHERE ` + where + filter + ` ORDER BY id` + f.within() + `)`
	}
	end := ` m WHERE ` + held(epoch) + ` ORDER BY id LIMIT ` + limit
	if !f.span {
		where := `id > ` + after + except(p.next())
		return columns + part(where, f.filter(p)) + end
	}
	low, high, gaps := p.next(), p.next(), p.next()
	filter := f.filter(p)
	return columns + `(
	` + part(`id > `+after+` AND id < `+low, filter) + `
	UNION ALL
	` + part(`id = ANY `+list(gaps, `bigint`), filter) + `
	UNION ALL
	` + part(`id > `+high, filter) + `
)` + end
}

func (f form) filter(p *params) string {
	filter := ``
	if f.buckets {
		filter += ` AND bucket = ANY ` + list(p.next(), `smallint`)
	}
	switch f.topics {
	case allTopics:
	case onlyTopics:
		filter += ` AND topic = ANY ` + list(p.next(), `text`)
	case notTopics:
		filter += ` AND topic <> ALL ` + list(p.next(), `text`)
	}
	return filter
}

func (f form) delete(p *params) string {
	return `DELETE FROM outbox_messages WHERE ` + held(p.next()) + ` AND id BETWEEN ` + p.next() + ` AND ` + p.next() +
		` AND id = ANY ` + list(p.next(), `bigint`)
}

// keep copies what a DELETE of the name gone returns to the archive.
func (f form) keep() string {
	return `INSERT INTO ` + archive(f.archive) + ` (` + carried + `, delivered_at) SELECT ` + carried + `, (SELECT ` + now + `) FROM gone`
}

func (f form) ack(p *params) string {
	if f.archive < 0 {
		return f.delete(p)
	}
	return `WITH gone AS (` + f.delete(p) + ` RETURNING ` + carried + `)
` + f.keep()
}

// ackFetch deletes and reads in one snapshot: the messages that it deletes are
// still there for the one who reads, and are left out as Except.
func (f form) ackFetch() string {
	p := new(params)
	text := `WITH gone AS (` + f.delete(p)
	if f.archive >= 0 {
		text += ` RETURNING ` + carried + `), kept AS (` + f.keep()
	}
	return text + `)
` + f.fetch(p)
}

// waiting reads both kinds of messages, each with an index of its own and no
// further than to the limit: place 1 is by a time of their own, 2 by the time of
// their key. Of the keys those come first that have been due longest, no more
// than would fill the list with a message each.
func (f form) waiting() string {
	p := new(params)
	epoch, ids, limit := p.next(), p.next(), p.next()
	filter := f.filter(p)
	behind := `outbox_waiting w WHERE w.topic = p.topic AND w.message_key = p.message_key AND w.due_at IS NULL` + except(ids)
	return `SELECT ` + head + `, state, attempt, error, place FROM (
	(SELECT ` + head + `, attempt, error, 1 AS place, due_at AS due, ` + parkedState + ` AS state
		FROM outbox_waiting m` + inOrder + ` WHERE due_at <= (SELECT ` + now + `)` + except(ids) + filter + ` ORDER BY due_at, id` + f.within() + `)
	UNION ALL
	(SELECT m.*, 2, p.due_at, 0
		FROM (SELECT p.* FROM outbox_parked p` + inOrder + ` WHERE due_at <= (SELECT ` + now + `)` + filter + `
			AND EXISTS (SELECT FROM ` + behind + ` OFFSET 0) ORDER BY due_at` + f.within() + `) p
		CROSS JOIN LATERAL (SELECT ` + head + `, attempt, error FROM ` + behind + ` ORDER BY id` + f.within() + `) m
		ORDER BY p.due_at, p.topic, p.message_key, m.id` + f.within() + `)
) m WHERE ` + held(epoch) + ` ORDER BY due, id LIMIT ` + limit
}
