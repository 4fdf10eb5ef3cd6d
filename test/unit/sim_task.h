/*
 * sim_task.h
 *		Tasks of a simulation: code that reads as that of a process that waits, and is
 *		left and gone on with in between.  One task runs at a time, and only task_yield()
 *		leaves it.
 *
 *		A task that is not gone on with is forgotten by starting it anew.  What
 *		_FORTIFY_SOURCE makes of longjmp() does not know several stacks: whoever includes
 *		this undefines it first of all.
 */
#ifndef SIM_TASK_H
#define SIM_TASK_H

#include <setjmp.h>
#include <ucontext.h>

#define TASK_STACK	(64 * 1024)

typedef struct Task
{
	bool		begins;
	void		(*main) (void *arg);	/* does not return */
	void	   *arg;
	jmp_buf		left_at;
	ucontext_t	context;		/* only to begin with: it takes system calls */
	char	   *stack;
} Task;

static Task *running_task = NULL;
static jmp_buf task_left;

static void
task_main(void)
{
	running_task->main(running_task->arg);
	abort();
}

/* Anew, if it had begun. */
static inline void
task_start(Task *task, void (*main) (void *arg), void *arg)
{
	if (task->stack == NULL)
		task->stack = malloc(TASK_STACK);
	getcontext(&task->context);
	task->context.uc_stack.ss_sp = task->stack;
	task->context.uc_stack.ss_size = TASK_STACK;
	task->context.uc_link = NULL;
	makecontext(&task->context, task_main, 0);
	task->main = main;
	task->arg = arg;
	task->begins = true;
}

/* Goes on with a task until it yields. */
static inline void
task_run(Task *task)
{
	running_task = task;
	if (_setjmp(task_left) == 0)
	{
		if (!running_task->begins)
			_longjmp(running_task->left_at, 1);
		running_task->begins = false;
		setcontext(&running_task->context);
	}
	running_task = NULL;
}

static inline void
task_yield(void)
{
	if (_setjmp(running_task->left_at) == 0)
		_longjmp(task_left, 1);
}

#endif							/* SIM_TASK_H */
