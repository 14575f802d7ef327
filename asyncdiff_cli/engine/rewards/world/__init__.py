"""What mini's world can show: its words, its grammar, and the judge that reads its pictures."""
