// How the search orders what it finds: questions and guides before the many pages of
// the API, unless a name is meant. The other numbers are those of Sphinx.
var Scorer = {
  score: ([page, title, anchor, description, score]) =>
    page.startsWith("api/") && score < 20 ? score - 10 : score,
  objNameMatch: 11,
  objPartialMatch: 1,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
