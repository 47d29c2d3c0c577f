package clusternet

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	line := base64.StdEncoding.EncodeToString(testKey)
	for name, text := range map[string]string{
		"as keygen prints it": line + "\n",
		"without an end":      line,
		"from Windows":        line + "\r\n",
		"with space around":   "\n \t" + line + " \n\n",
	} {
		if key, err := ParseKey([]byte(text)); err != nil || !bytes.Equal(key, testKey) {
			t.Errorf("%s: %x, %v", name, key, err)
		}
	}
	for name, test := range map[string]struct{ text, says string }{
		"nothing":     {"", "is empty"},
		"white space": {" \n", "is empty"},
		"no base64":   {"hunter2 hunter2", "not one line of base64"},
		"two keys":    {line + "\n" + line + "\n", "not one line of base64"},
		"cut off":     {line[:40], "has 30 bytes and must have 32"},
		"hex":         {strings.Repeat("07", 32), "has 48 bytes and must have 32"},
		"raw bytes":   {string(testKey), "not one line of base64"},
		"loose bits":  {line[:42] + "d=", "not one line of base64"},
	} {
		key, err := ParseKey([]byte(test.text))
		if err == nil {
			t.Errorf("%s is taken for the key %x", name, key)
			continue
		}
		for _, want := range []string{test.says, "schedd keygen"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, want in it %q", name, err, want)
			}
		}
		if len(test.text) > 2 && strings.Contains(err.Error(), test.text[:7]) {
			t.Errorf("%s: %q tells of the key", name, err)
		}
	}
}
