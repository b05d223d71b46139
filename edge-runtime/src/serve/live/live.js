(() => {
  const live = document.getElementById('live'), lost = document.getElementById('lost');
  let busy = false, shown = '';
  const look = async () => {
    const active = document.activeElement;
    if (busy || document.hidden || (active && active.tagName === 'BUTTON')) return;
    busy = true;
    try {
      const answer = await fetch('/live', { signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      if (text !== shown) live.innerHTML = shown = text;
      lost.hidden = true;
    } catch { lost.hidden = false; }
    busy = false;
  };
  setInterval(look, 2000);
  document.addEventListener('visibilitychange', look);
})();
