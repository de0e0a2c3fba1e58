package logs

import "slices"

// The first three classes of bytes have a meaning of their own; every byte that a needle contains has a further one.
const (
	classSpace  = iota // white space: a run of it counts as one byte
	classEscape        // may begin a colour sequence, which counts as nothing
	classOther         // bytes that no needle contains
	classNeedle
)

// noLabel is the label of a node without children: there are never that many classes.
const noLabel = 0xff

// node is one state. Its children follow it in depth-first order, so the first child of s is s+1: a node with one
// child needs no table, and only the few that branch have a row.
type node struct {
	row   int32 // index of its row in automaton.rows, or -1
	fail  int32 // the state of the longest proper suffix that is a prefix of a needle
	match int32 // length of the longest needle that ends here, 0 for none
	label uint8 // class that leads to s+1 where there is no row
}

// automaton finds every needle in one pass (Aho-Corasick over classes of bytes). It costs at most two steps a byte
// whatever the input, and 20 bytes for each byte of the needles. It is immutable.
//
// Searching for each needle by itself costs time for each of them, and a build has hundreds with all encodings. A full
// table, a row for every state, would be read in one step a byte, but takes up to a KiB a state.
type automaton struct {
	class [256]uint8 // of each byte; bytes that no needle contains share one, which keeps rows short
	nodes []node     // the first one is the root
	depth []int32    // how many bytes may yet become a needle in a state: as many have to be held back
	rows  []int32    // complete transitions of the root, its children and of every node that branches
}

// newAutomaton builds the automaton over needles that normalise has gone over.
func newAutomaton(needles []string) *automaton {
	a := &automaton{}
	classes := a.classify(needles)
	coded := make([][]byte, 0, len(needles))
	for _, needle := range needles {
		code := make([]byte, len(needle))
		for i := range code {
			code[i] = a.class[needle[i]]
		}
		coded = append(coded, code)
	}
	slices.SortFunc(coded, slices.Compare)
	a.link(a.grow(coded), classes)
	return a
}

// classify gives each byte its class and returns how many classes there are.
func (a *automaton) classify(needles []string) int {
	for b := range a.class {
		a.class[b] = classOther
	}
	for _, b := range []byte("\t\n\v\f\r ") {
		a.class[b] = classSpace
	}
	a.class[escape] = classEscape
	next := uint8(classNeedle)
	for _, needle := range needles {
		for i := range len(needle) {
			if a.class[needle[i]] == classOther {
				a.class[needle[i]] = next
				next++
			}
		}
	}
	return int(next)
}

// trie is what only the construction needs: how to go from a node to its parent and to its next sibling (0: there is
// none, since the root is nobody's), and under which label.
type trie struct {
	parent, sibling []int32
	label           []uint8
}

// grow makes the nodes of sorted needles, each needle continuing where it parts from the one before.
func (a *automaton) grow(needles [][]byte) *trie {
	t := &trie{parent: []int32{-1}, sibling: []int32{0}, label: []uint8{noLabel}}
	a.nodes, a.depth = []node{{row: -1, label: noLabel}}, []int32{0}
	path := []int32{0}
	var previous []byte
	for _, needle := range needles {
		common := 0
		for common < min(len(previous), len(needle)) && previous[common] == needle[common] {
			common++
		}
		if common < len(previous) && common < len(needle) { // else the needle goes on where the previous one ended
			t.sibling[path[common+1]] = int32(len(a.nodes))
		}
		path = path[:common+1]
		for i := common; i < len(needle); i++ {
			child := int32(len(a.nodes))
			t.parent, t.sibling, t.label = append(t.parent, path[i]), append(t.sibling, 0), append(t.label, needle[i])
			a.nodes = append(a.nodes, node{row: -1, label: noLabel})
			a.depth = append(a.depth, int32(i+1))
			path = append(path, child)
		}
		a.nodes[path[len(needle)]].match = int32(len(needle))
		previous = needle
	}
	return t
}

// link sets the failure links and the rows, shallow nodes first, because each is made of shallower ones. A row is the
// failure state's, which is there already, with the node's own children laid over it.
func (a *automaton) link(t *trie, classes int) {
	for _, s := range a.byDepth() {
		n := &a.nodes[s]
		if a.depth[s] > 1 {
			n.fail = a.step(a.nodes[t.parent[s]].fail, t.label[s])
		}
		if n.match == 0 { // a shorter needle may end within a longer one
			n.match = a.nodes[n.fail].match
		}
		child := s + 1
		if int(child) == len(a.nodes) || t.parent[child] != s {
			child = 0
		}
		// Most input is near the root, so the root's children have rows too: one look-up a byte instead of two or
		// three.
		if a.depth[s] > 1 && (child == 0 || t.sibling[child] == 0) {
			if child != 0 {
				n.label = t.label[child]
			} else {
				a.depth[s] = a.depth[n.fail] // a needle that has ended needs no more holding back
			}
			continue
		}
		row := make([]int32, classes)
		if s != 0 {
			for class := range row {
				row[class] = a.step(n.fail, uint8(class))
			}
		}
		for ; child != 0; child = t.sibling[child] {
			row[t.label[child]] = child
		}
		n.row = int32(len(a.rows))
		a.rows = append(a.rows, row...)
	}
}

// byDepth lists the states, shallow ones first (a counting sort: there may be half a million).
func (a *automaton) byDepth() []int32 {
	starts := make([]int32, slices.Max(a.depth)+2)
	for _, depth := range a.depth {
		starts[depth+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	order := make([]int32, len(a.nodes))
	for s, depth := range a.depth {
		order[starts[depth]] = int32(s)
		starts[depth]++
	}
	return order
}

// step is the state after one more byte of a class.
func (a *automaton) step(s int32, class uint8) int32 {
	for {
		n := &a.nodes[s]
		if n.row >= 0 {
			return a.rows[n.row+int32(class)]
		}
		if n.label == class {
			return s + 1
		}
		s = n.fail
	}
}
