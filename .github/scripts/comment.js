// Posts a comment on a pull request: one a topic, updated in place. Run by actions/github-script.
//
// COMMENT in the environment is the file that `python3 -m tools.pull_request.comment` has written. Its first line is the
// marker of its topic. PULL_REQUEST is the number that was typed in where somebody has started the workflow by hand.
'use strict';

const { readFileSync } = require('node:fs');

// Who comments with the token that a workflow gets.
const BOT = 'github-actions[bot]';

module.exports = async ({ github, context, core }) => {
  const body = readFileSync(process.env.COMMENT, 'utf8');
  const [marker] = body.match(/^<!-- mnist-cnn: .+ -->\n/) ?? [];
  if (!marker) throw new Error(`${process.env.COMMENT}: the first line is no marker`);

  const run = context.payload.workflow_run;
  const number = run ? await ofRun(github, context, run) : typed(process.env.PULL_REQUEST);
  if (number === undefined) {
    core.info('No open pull request ends in this commit any more: nothing to post');
    return null;
  }

  const issue = { ...context.repo, issue_number: number };
  const comments = await github.paginate(github.rest.issues.listComments, { ...issue, per_page: 100 });
  // Others may write the marker, too: their comments are left alone. GitHub may give lines other ends than it was given.
  const known = comments.find(
    (comment) => comment.user?.login === BOT && comment.body?.replaceAll('\r\n', '\n').startsWith(marker),
  );
  const { data } = known
    ? await github.rest.issues.updateComment({ ...context.repo, comment_id: known.id, body })
    : // Not tried again: the comment may be there although its answer was lost, and would be made twice.
      await github.rest.issues.createComment({ ...issue, body, request: { retries: 0 } });
  core.info(data.html_url);
  return data.html_url;
};

// The open pull request whose last commit the run was on. GitHub is asked, since the report may say anything; by branch,
// since GitHub's own way from a commit to its pull requests knows nothing of commits in forks.
async function ofRun(github, context, run) {
  if (!run.head_repository) return undefined; // deleted since
  const head = `${run.head_repository.owner.login}:${run.head_branch}`;
  const open = await github.paginate(github.rest.pulls.list, { ...context.repo, state: 'open', head, per_page: 100 });
  const numbers = open.filter((pull) => pull.head.sha === run.head_sha).map((pull) => pull.number);
  if (numbers.length > 1) {
    const named = numbers.map((number) => `#${number}`).join(', ');
    throw new Error(`${head}: several pull requests, ${named}: the report is against one base alone`);
  }
  return numbers[0];
}

function typed(text) {
  const number = (text ?? '').trim();
  if (!/^[1-9]\d{0,8}$/.test(number)) throw new Error(`${JSON.stringify(number)} is not a pull request's number`);
  return Number(number);
}
