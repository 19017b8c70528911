package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

func TestDoctorPlansForACard(t *testing.T) {
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("HF_HUB_CACHE", filepath.Join(data, "hub"))
	for _, c := range []struct {
		args []string
		code fault.Kind
		says string
	}{
		{[]string{"--card", "voodoo2"}, fault.Usage, "the cards are a10, a100-80, "},
		{[]string{"--card-memory", "24"}, fault.Usage, "with its unit"},
		{[]string{"--card-memory", "24GiB", "--devices", "0,1,2"}, fault.Usage, "one card for both, or two"},
		{[]string{"--card-memory", "24GiB", "--devices", "a"}, fault.Usage, "numbers of cards"},
		{[]string{"--card-memory", "24GiB", "--devices", "1,1"}, fault.Usage, "one card for both, or two"},
		{[]string{"--stories-per-s", "-1"}, fault.Usage, "--stories-per-s -1: must be above 0"},
		{[]string{"--tok-per-s", "1000"}, fault.Usage, "goes with --stories-per-s"},
		{[]string{"--card", "h200", "--watts", "0"}, fault.Usage, "--watts 0: must be above 0"},
		{[]string{"--card-memory", "24GiB", "--teacher", "other.gguf"}, fault.Capability, "its memory cannot be planned"},
		{[]string{"--card-memory", "8GiB"}, fault.Capability, "MISSING: 4 of "},
	} {
		code, _, said := runProgram(t, append([]string{"doctor", "--config", "h200"}, c.args...)...)
		if code != int(c.code) || !strings.Contains(said, c.says) {
			t.Errorf("%q: %d, %s", c.args, code, said)
		}
	}
	_, result, _ := runProgram(t, "doctor", "--config", "h200", "--card", "l40s", "--devices", "0,1", "--json")
	planned, ok := result["plan"].(map[string]any)
	if !ok {
		t.Fatalf("%v", result)
	}
	memory, time := planned["memory"].(map[string]any), planned["time"].(map[string]any)
	if totals := memory["totals"].([]any); len(totals) != 2 || memory["fits"] != true || time["source"] != "projected" || time["hours"].(float64) <= 0 {
		t.Errorf("%v", planned)
	}
	if !strings.Contains(fmt.Sprint(result["findings"]), "run with --teacher-device cuda:0 and ONCEUPON_CUDA_DEVICE=1") {
		t.Errorf("how to run on two cards: %v", result["findings"])
	}
	if text := fmt.Sprint(result["findings"]); !strings.Contains(text, "llama-3.1-8b-q8_0 (Meta-Llama-3.1-8B-Instruct-Q8_0.gguf) is not there: run `onceupon teacher pull") {
		t.Errorf("a teacher's file is looked for where libllama lacks too: %s", text)
	}
	_, result, _ = runProgram(t, "doctor", "--config", "paper", "--stories-per-s", "2.88", "--watts", "400", "--json")
	if time := result["plan"].(map[string]any)["time"].(map[string]any); time["source"] != "measured" || int(time["hours"].(float64)*10) != 319 {
		t.Errorf("measured: %v", time)
	}
}
