package storybook

import (
	"math/rand/v2"
	"strings"
)

// telling is the state of one story: the words that its roles stand for and
// which characters have been introduced.
type telling struct {
	data       *data
	r          *rand.Rand
	words      map[string]string
	introduced map[string]bool
}

func (t *telling) pick(list string) string {
	words := t.data.words[list]
	return words[t.r.IntN(len(words))]
}

// pickOther picks a word that differs from the given ones.
func (t *telling) pickOther(list string, not ...string) string {
	for {
		word := t.pick(list)
		other := true
		for _, n := range not {
			other = other && word != n
		}
		if other {
			return word
		}
	}
}

// cast draws everything a plot may ask for.
func (t *telling) cast() {
	t.introduced = map[string]bool{}
	t.character("hero", "")
	t.character("friend", t.words["hero"])
	for _, role := range []string{"thing", "look", "place", "food", "big", "person", "weather", "sound", "flower"} {
		t.words[role] = t.pick(role)
	}
	t.words["place2"] = t.pickOther("place", t.words["place"])
}

// character draws a child or an animal with name, kind, trait and pronouns.
func (t *telling) character(role, otherName string) {
	kind, list, traits := "animal", "animal name", "trait"
	switch t.r.IntN(4) {
	case 0:
		kind, list, traits = "girl", "girl", "child trait"
	case 1:
		kind, list, traits = "boy", "boy", "child trait"
	}
	t.words[role] = t.pickOther(list, otherName)
	t.words[role+" trait"] = t.pick(traits)
	he := kind == "boy" || kind == "animal" && t.r.IntN(2) == 0
	for i, pronoun := range []string{"he", "him", "his"} {
		if !he {
			pronoun = []string{"she", "her", "her"}[i]
		}
		t.words[role+" "+[]string{"he", "him", "his"}[i]] = pronoun
	}
	if kind == "animal" {
		kind = t.pickOther("animal", t.words["hero kind"])
	}
	t.words[role+" kind"] = kind
}

// fill replaces the roles in braces. A role that begins with a capital gives a
// capital.
func (t *telling) fill(text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			break
		}
		role, after, _ := strings.Cut(rest, "}")
		word := t.word(strings.ToLower(role))
		if sentenceStart(b.String()) || role != strings.ToLower(role) {
			word = capital(word)
		}
		b.WriteString(word)
		text = after
	}
	return b.String()
}

// capital gives the first letter a capital.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// sentenceStart says whether the next word begins a sentence inside the text.
// The beginning of the text itself follows the opening and stays as it is.
func sentenceStart(before string) bool {
	s := strings.TrimRight(before, " \"")
	return s != "" && strings.HasSuffix(before, " ") && strings.ContainsAny(s[len(s)-1:], ".!?")
}

func (t *telling) word(role string) string {
	switch role {
	case "hero intro", "friend intro", "hero intro again":
		who := strings.Fields(role)[0]
		if t.introduced[who] {
			return t.words[who]
		}
		t.introduced[who] = true
		return article(t.words[who+" trait"]) + " " + t.words[who+" kind"] + " named " + t.words[who]
	case "hero", "friend":
		if !t.introduced[role] {
			return t.word(role + " intro")
		}
	case "a thing":
		if t.introduced["thing"] {
			return "the " + t.words["thing"]
		}
		t.introduced["thing"] = true
		return article(t.words["look"]) + " " + t.words["thing"]
	case "look thing":
		return t.words["look"]
	}
	word, ok := t.words[role]
	if !ok {
		panic("storybook: no role {" + role + "}") // a mistake in data/plots.txt
	}
	return word
}

// article puts a or an before a word.
func article(word string) string {
	if strings.ContainsRune("aeiou", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}
