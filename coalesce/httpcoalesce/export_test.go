package httpcoalesce

// MaxNotes is how many notes a Handler keeps at most.
const MaxNotes = len(Handler{}.shards) * notesPerShard

// MaxKey is the length of the longest key.
const MaxKey = maxKey

// Notes counts the notes, and Flights the flights that can be joined.
func Notes(h *Handler) (n int) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		n += len(s.notes)
		s.mu.Unlock()
	}
	return n
}

func Flights(h *Handler) (n int) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		n += len(s.flights)
		s.mu.Unlock()
	}
	return n
}

// MaxVary is how many fields are remembered for one resource at most.
const MaxVary = maxVary

// Varies is the largest number of fields that is remembered for one resource.
func Varies(h *Handler) (n int) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		for _, note := range s.notes {
			n = max(n, len(note.vary))
		}
		s.mu.Unlock()
	}
	return n
}

// The parsers.
var (
	ParseDirectives = parseDirectives
	ParseVary       = parseVary
)
